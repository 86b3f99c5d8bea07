"""Draw the pictures of app.md: the page as a visitor sees it, in a browser.

Run:    python docs/app_pictures.py

Needs the extras `app` and `test`, and Chromium.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from unilens.app.model_sources import SeriesModel, TableModel
from unilens.app.server import open_page

HERE = Path(__file__).parent / "images"
MODELS = Path(__file__).parents[1] / "tests" / "app"
"""Where the models of tables and series are."""
PATIENCE = 600_000
"""How long a browser waits for anything, in milliseconds."""
SCREENS = (
    ("app.jpg", 1600, 1000, "light"),
    ("app-dark.jpg", 1600, 1000, "dark"),
    ("app-1024.jpg", 1024, 768, "light"),
    ("app-380.jpg", 380, 800, "light"),
    ("app-380-dark.jpg", 380, 800, "dark"),
)
"""Pictures of the page as it opens: file, width, height, colours."""
MIDDLE = 8
"""The place on the path, of 0 to 16."""


def main() -> None:
    """Write the pictures."""
    with open_page(port=0) as address, sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )

        def visit(width: int, height: int, **settings: Any) -> Page:
            page = browser.new_page(viewport={"width": width, "height": height}, **settings)
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            page.locator(".ul-path-steps").wait_for(state="attached")
            page.wait_for_timeout(1000)  # until nothing moves
            return page

        for name, width, height, scheme in SCREENS:
            page = visit(width, height, color_scheme=scheme)
            page.screenshot(path=HERE / name, type="jpeg", quality=80, full_page=width < 500)
        draw_opinion(visit(1400, 1400))
        draw_panels(visit(1400, 1400))
        browser.close()
    draw_tabs()


def draw_opinion(page: Page) -> None:
    """Write the picture of the second opinion."""
    explain(page, "coffee")
    page.locator("#ul-second").click()
    page.locator(".ul-opinion").wait_for()
    picture(page, "opinion")


def draw_panels(page: Page) -> None:
    """Write the pictures of the other parts that lie below the maps."""
    explain(page, "chelsea")
    for number in (0, 1):
        page.locator("#ul-predictions button").nth(number).click()
    page.locator(".ul-contrast").wait_for()
    picture(page, "contrast")
    page.locator("#ul-path-view input[type=range]").fill(str(MIDDLE))
    picture(page, "path")
    page.locator("#ul-check").click()
    page.locator(".ul-checks").wait_for()
    picture(page, "trust-part")


def picture(page: Page, part: str) -> None:
    """Write the picture of one part of the page."""
    page.wait_for_timeout(1000)  # until nothing moves
    path = HERE / f"app-{part.removesuffix('-part')}.png"
    page.locator(f"#ul-{part}").screenshot(path=path)
    shrink(path)


def draw_tabs() -> None:
    """Write the pictures of the tabs of tables and series."""
    sys.path.insert(0, str(MODELS))
    import tab_models

    with tempfile.TemporaryDirectory() as name, sync_playwright() as running:
        folder = Path(name)
        tab_models.people(40, 5).to_csv(folder / "typical.csv", index=False)
        tab_models.people(30).to_csv(folder / "people.csv", index=False)
        tab_models.signals().to_csv(folder / "signals.csv", index=False)
        table = TableModel("py:tab_models:table", folder / "typical.csv")
        with open_page(port=0, table=table, series=SeriesModel("py:tab_models:series")) as address:
            browser = running.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(PATIENCE)
            page.goto(address)
            for key, file in (("table", "people.csv"), ("series", "signals.csv")):
                page.get_by_role("tab", name=key.title()).click()
                page.locator(f"#ul-{key}-file input[type=file]").set_input_files(folder / file)
                page.locator(f"#ul-{key}-preview .ul-preview").wait_for()
                page.locator(f"#ul-{key}-explain").click()
                page.locator(f"#ul-{key}-view .ul-card, #ul-{key}-row .ul-card").wait_for()
                page.wait_for_timeout(1000)  # until nothing moves
                page.screenshot(path=HERE / f"app-{key}.png", full_page=True)
                shrink(HERE / f"app-{key}.png")
            browser.close()


def explain(page: Page, sample: str) -> None:
    """Have a sample explained by the method that the page begins with, and by another."""
    page.locator(".ul-more").click()
    page.locator("#ul-methods input[name=ig]").check()
    page.locator(f"#ul-sample [data-sample={sample}]").click()
    page.locator(f"#ul-predictions :text('{sample}.png')").wait_for()
    page.locator(".ul-path-steps .ul-cards[data-count='2']").wait_for()
    page.wait_for_timeout(1000)  # until nothing moves


def shrink(path: Path) -> None:
    """Give a picture no more than 256 colours."""
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()

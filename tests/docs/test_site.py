"""The site builds without a warning or a network, and has a page for all that is registered."""

import html
import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from mkdocs.commands.build import build
from mkdocs.config import load_config

import unilens
from unilens.baselines import baselines
from unilens.errors import NotApplicableError
from unilens.methods import methods
from unilens.metrics import metrics

from ..conftest import SmallNet, randomise

ROOT = Path(__file__).parents[2]
REFERENCES = 4 * torch.randn(6, 3, 13, 11, generator=torch.Generator().manual_seed(2)).double()
"""Far apart, so that the model sees several classes."""


@pytest.fixture(scope="module")
def hook():
    spec = importlib.util.spec_from_file_location("site_hook", ROOT / "docs" / "site.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))  # as mkdocs does
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)  # raises at the first warning, since it is strict
    return folder


class Loaded(HTMLParser):
    """What a browser would load with a page, and where its links lead."""

    def __init__(self):
        super().__init__()
        self.loaded, self.classes = [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.classes.update((given.get("class") or "").split())
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed", "object"):
            self.loaded += [given.get(key) for key in ("src", "srcset", "data") if given.get(key)]
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href"))


def test_nothing_comes_from_another_host(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    for page in pages:
        text = page.read_text(encoding="utf-8")
        seen = Loaded()
        seen.feed(text)
        assert not [url for url in seen.loaded if re.match(r"(https?:)?//", url)], page
        assert not seen.classes & {"mermaid", "arithmatex"}, page  # they would load a script
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import )[\"']?(https?:)?//", sheet.read_text("utf-8")), sheet


@pytest.mark.parametrize(
    ("folder", "registry"), [("methods", methods), ("metrics", metrics), ("baselines", baselines)]
)
def test_navigation_has_a_page_for_everything_registered(site, folder, registry):
    home = (site / "index.html").read_text(encoding="utf-8")
    for name, entry in registry.items():
        text = html.unescape((site / folder / name / "index.html").read_text(encoding="utf-8"))
        assert entry.card.reference.partition(",")[0] in text, name
        assert all(f"<code>{setting}</code>" in text for setting in entry.settings), name
        assert f'href="{folder}/{name}/"' in home, name


def test_the_reference_has_every_public_name(site):
    text = (site / "api" / "unilens" / "index.html").read_text(encoding="utf-8")
    for name in unilens.__all__:
        assert f'id="unilens.{name}"' in text or f"<code>unilens.{name}()</code>" in text, name


def test_examples_in_docstrings_are_code(site):
    """Pasted into Markdown as it stands, a doctest is three quotations within each other."""
    examples = 0
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<blockquote>\s*<blockquote>", text), page
        examples += text.count('<span class="gp">&gt;&gt;&gt;')
    assert examples >= 40


def test_navigation_has_every_page_and_notebook(site, hook):
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        if page.name != "index.md":
            assert f'href="{page.stem}/"' in home, page.name
    for path in hook.notebooks():
        assert f'href="notebooks/{path.stem}/"' in home


def test_site_has_five_parts_with_previous_and_next_pages(site):
    home = (site / "index.html").read_text(encoding="utf-8")
    tabs = re.findall(r'class="md-tabs__link">\s*([^<]+?)\s*<', home)
    assert tabs == ["Start", "Learn", "How to", "Reference", "Evidence"]
    middle = (site / "uni" / "index.html").read_text(encoding="utf-8")
    assert {"md-footer__link--prev", "md-footer__link--next"} <= classes_of(middle)


def classes_of(text):
    seen = Loaded()
    seen.feed(text)
    return seen.classes


def test_every_part_has_an_overview_with_links_to_its_pages(hook):
    parts = load_config(str(ROOT / "mkdocs.yml")).nav
    assert len(parts) == 5
    for part in parts:
        ((title, listed),) = part.items()
        pages = re.findall(r"'([\w-]+\.md)'", str(listed))
        overview = (ROOT / "docs" / pages[0]).read_text(encoding="utf-8")
        missing = [page for page in pages[1:] if f"({page}" not in overview]
        assert missing == [], title


def test_pages_of_components_say_what_each_setting_does(hook):
    pages = {
        "methods": hook.method_page,
        "metrics": hook.metric_page,
        "baselines": hook.baseline_page,
    }
    for kind, page in pages.items():
        for name, entry in hook.REGISTRIES[kind].items():
            rows = re.findall(r"^\| `(\w+)` \| (.*?) \| ", page(name), re.MULTILINE)
            assert sorted(setting for setting, _ in rows) == sorted(entry.settings), name
            assert not [words for _, words in rows if re.fullmatch(r"|see `\w+`\.", words)], name


def test_settings_of_components_have_their_own_meanings(hook):
    page = hook.method_page("uni_blur")
    unlearned = page.partition("### Of baseline `unlearned`")[2].partition("###")[0]
    assert "| `budget` | epsilon, the l2 distance of the baseline from the input" in unlearned
    assert "| `0.25` | number above 0 |" in unlearned
    assert "`budget`" not in hook.method_page("ig")


def test_a_setting_without_a_meaning_is_an_error(hook):
    def build(sharpness=1.0):
        """Say nothing of it."""
        return unilens.PathAttribution()

    card = hook.Card("mute", "path", "says nothing of its setting", "nobody")
    with pytest.raises(LookupError, match="mute to say what its setting sharpness is"):
        list(hook.settings_tables(hook.Entry(card, build)))


def test_llms_text_of_the_site_links_to_its_pages(site):
    text = (site / "llms.txt").read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert len(targets) >= 12
    assert [target for target in targets if not (site / target / "index.html").is_file()] == []


def code_of(text):
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return code


@pytest.mark.parametrize("name", methods)
def test_the_code_on_a_methods_page_runs(name, hook):
    model = randomise(SmallNet().double())
    images = torch.rand(1, 3, 13, 11, generator=torch.Generator().manual_seed(1)).double()
    names = {"unilens": unilens, "model": model, "images": images, "references": REFERENCES}
    try:
        exec(code_of(hook.method_page(name)), names)
    except NotApplicableError:
        assert {"perceptron", "attention"} & {*methods[name].card.traits}  # other networks
    else:
        assert names["attribution"].values.shape == images.shape


@pytest.mark.parametrize("name", baselines)
def test_the_code_on_a_baselines_page_runs(name, hook):
    names = {"unilens": unilens, "model": randomise(SmallNet().double()), "references": REFERENCES}
    names["images"] = REFERENCES[:1]
    exec(code_of(hook.baseline_page(name)), names)
    assert names["attribution"].values.isfinite().all()


@pytest.mark.parametrize("name", metrics)
def test_the_code_on_a_metrics_page_names_what_it_needs(name, hook):
    code = code_of(hook.metric_page(name))
    asked = []

    def evaluate(*positional, **named):
        asked.append((positional[3], set(named)))

    names = dict.fromkeys(("model", "images", "attribution", "mask", "without_parts"))
    names["unilens"] = type("Stub", (), {"evaluate": staticmethod(evaluate)})
    exec(code, names)
    assert asked == [(name, set(metrics[name].card.needs) - {"path"})]

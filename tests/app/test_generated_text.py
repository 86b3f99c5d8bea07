"""The page of a generated text in a browser: a click colours what a token owes to others."""

import pytest

from unilens.text.generation.render import page

from ..generated_text import hostile, large, made


@pytest.fixture
def visit(browser):
    opened = []

    def visit(attribution, by="token"):
        view = browser.new_page()
        opened.append(view)
        view.errors, view.asked = [], []
        view.on("pageerror", lambda error: view.errors.append(str(error)))
        view.on("request", lambda request: view.asked.append(request.url))
        view.set_content(page({"a": attribution, "b": attribution}, "text", by))
        return view

    yield visit
    for view in opened:
        view.close()


def classes(view):
    """The columns and classes of the pieces of the first fragment."""
    pieces = view.locator(".unilens-generation").first.locator("span[data-column]").all()
    return [(int(p.get_attribute("data-column")), p.get_attribute("class") or "") for p in pieces]


def expected(attribution, row, columns):
    values = attribution.by("token").values[row].nan_to_num()
    scale = float(values.abs().max())
    kinds = []
    for column in columns:
        level = round(20 * abs(float(values[column])) / scale)
        kinds.append(f"{'p' if values[column] > 0 else 'n'}{level}" if level else "")
    return kinds


def test_a_click_colours_what_the_token_owes_to_those_before(visit):
    attribution = made()
    view = visit(attribution)
    columns = [column for column, _ in classes(view)]
    assert [kind for _, kind in classes(view)] == expected(attribution, 0, columns)
    view.locator("span[data-row='5']").first.click()
    assert [kind for _, kind in classes(view)] == expected(attribution, 5, columns)
    assert "“Yes”: score" in view.locator("output").first.inner_text()
    assert "“No”" in view.locator("output").nth(1).inner_text()  # the other method's stays
    view.locator("tbody th[data-row='2']").first.click()
    assert [kind for _, kind in classes(view)] == expected(attribution, 2, columns)
    chosen = view.locator("span[data-row='3']").first
    chosen.focus()
    chosen.press("Enter")
    assert [kind for _, kind in classes(view)] == expected(attribution, 3, columns)
    assert chosen.get_attribute("aria-pressed") == "true"
    assert view.errors == []
    assert view.asked == []


@pytest.mark.parametrize("attribution", [hostile(), large(128, 512)])
def test_a_page_runs_without_errors_whatever_the_text(visit, attribution):
    view = visit(attribution)
    view.locator("span[data-row='1']").first.click()
    assert view.locator("span[aria-pressed='true']").first.get_attribute("data-row") == "1"
    assert view.errors == []
    assert view.asked == []

"""The panels about maps in a browser: how far to trust them, and the peel."""

import re

import pytest

from unilens.app.wording import title_of

from .test_page import CONTRAST, expect

PEEL = "#ul-path-view input[type=range]"


def only_visible(visit, stop, *selectors):
    """Wait until the parts of this stop of the path, and of no other, are visible."""
    for selector in selectors:
        parts = visit.find(f"#ul-path-view {selector}:visible")
        expect(parts.first).to_be_visible()  # a picture has no size until it is decoded
        for part in parts.all():
            expect(part).to_have_attribute("data-stop", stop)


def with_details(visit, part):
    """Wait for what is below the maps, and open a part that is folded on narrow screens."""
    visit.find(".ul-path-steps").wait_for(state="attached")
    if visit.page.viewport_size["width"] < 700:
        visit.open_part(part)


def quiet(visit):
    """Wait until nothing of the work before is under way; return what was requested so far."""
    visit.page.wait_for_timeout(1000)
    return list(visit.asked)


def percent(visit):
    """Return the confidence beside the picture, in percent."""
    shown = visit.find(".ul-confidence .ul-number").inner_text()
    return float(shown.removesuffix(" %").removeprefix("< "))


def test_the_slider_peels_the_photograph_without_the_server(visit):
    visit.sample().choose("uni_blur").explain()
    visit.find(".ul-path-steps").wait_for()
    picture, so_far = "figure:first-child img", visit.find(".ul-so-far").first
    only_visible(visit, "16", picture, "circle")
    assert so_far.get_attribute("width") == so_far.get_attribute("data-width")
    whole, asked = percent(visit), quiet(visit)
    visit.find(PEEL).focus()
    visit.page.keyboard.press("Home")
    expect(visit.find(".ul-path-steps")).to_have_attribute("data-at", "0")
    only_visible(visit, "0", picture, "circle")
    assert so_far.get_attribute("width") == "0"
    assert percent(visit) < whole - 30
    least = visit.find(".ul-confidence .ul-number").inner_text()
    said = visit.find(PEEL).get_attribute("aria-valuetext")
    assert re.fullmatch(rf"0 % of the way\. {title_of('uni_blur')}: “.+” {least}\.", said)
    visit.page.keyboard.press("ArrowRight")
    only_visible(visit, "1", picture)
    place = float(visit.find("[data-positions]").get_attribute("data-positions").split()[1])
    assert 0 < place <= 1 / 16
    assert float(so_far.get_attribute("width")) == pytest.approx(320 * place)
    dot = visit.find("#ul-path-view circle:visible")
    assert float(dot.get_attribute("cx")) == pytest.approx(320 * place, abs=0.06)
    assert visit.asked == asked


@pytest.mark.parametrize("width", [1024, 380])
def test_the_pointer_peels_the_photograph(window, width):
    visit = window(width=width, height=768).open().sample().choose("ig").explain()
    with_details(visit, "ul-path")
    asked = quiet(visit)
    figure = visit.find("#ul-path-view figure").first
    figure.scroll_into_view_if_needed()
    box = figure.bounding_box()
    for share, at in ((0.5, "8"), (0.25, "4"), (0.999, "16")):
        visit.page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        expect(visit.find(".ul-path-steps")).to_have_attribute("data-at", at)
        only_visible(visit, at, "figure:first-child img")
        assert visit.find(PEEL).input_value() == at
    chart = visit.find("#ul-path-view svg")
    chart.scroll_into_view_if_needed()
    axis = chart.locator(".ul-axis").first.bounding_box()
    visit.page.mouse.move(axis["x"] + axis["width"] / 4, axis["y"] - 20)
    expect(visit.find(".ul-path-steps")).to_have_attribute("data-at", "4")
    assert visit.asked == asked


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1024, 380])
def test_methods_are_compared_in_one_table(window, width, scheme):
    visit = window(width=width, height=768, color_scheme=scheme).open()
    visit.sample().choose("uni_blur", "gradient").explain(2)
    with_details(visit, "ul-trust-part")
    table = visit.find("#ul-trust table")
    assert table.locator("tbody th").count() == 4
    assert table.locator("td").count() == 8
    for cell in table.locator("td").all():
        light, word = (cell.locator(f".ul-{part}") for part in ("light", "level"))
        assert light.inner_text() in "●○▲✖?"
        assert word.inner_text() in ("good", "info", "caution", "problem", "not measured")
        assert word.evaluate(CONTRAST)[0] >= 4.5
        assert cell.bounding_box()["x"] + cell.bounding_box()["width"] <= width
        assert word.bounding_box()["width"] >= word.evaluate("word => word.scrollWidth")
        assert cell.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
    names = table.locator("thead th:visible").all_inner_texts()[1:]
    if width < 600:
        after = "cell => JSON.parse(getComputedStyle(cell, '::after').content)"
        names = [cell.evaluate(after) for cell in table.locator("td").all()[:2]]
    assert names == [title_of("uni_blur"), title_of("gradient")]
    strip = visit.find(".ul-maps article .ul-strip").first.locator("li")
    assert [text.split()[1] for text in strip.all_inner_texts()] == [
        *("sum", "steps", "path", "baseline")
    ]
    answers = visit.find("#ul-trust details").first
    assert not answers.locator("li").first.is_visible()
    answers.locator("summary").press("Enter")
    expect(answers.locator("li").first).to_be_visible()
    assert answers.locator("summary").inner_text().startswith(title_of("uni_blur") + ": ")


@pytest.mark.parametrize(("width", "scheme"), [(1024, "light"), (380, "dark")])
def test_two_bars_say_why_the_one_and_not_the_other(window, width, scheme):
    visit = window(width=width, height=768, color_scheme=scheme).open().sample()
    bars = visit.find("#ul-predictions button")
    names = bars.locator(".ul-label").all_inner_texts()
    bars.nth(1).click()
    bars.nth(0).press("Enter")
    panel = visit.find("#ul-contrast")
    expect(panel.locator("h2")).to_have_text(f"Why “{names[1]}”, not “{names[0]}”?")
    expect(panel.locator("h2")).to_be_in_viewport()
    for text in panel.locator("p, h2, figcaption, .ul-legend span").all():
        assert text.evaluate(CONTRAST)[0] >= 4.5
    for picture in panel.locator("img").all():
        box = picture.bounding_box()
        assert box["width"] > 100
        assert box["x"] + box["width"] <= width
    colours = [bar.evaluate("bar => getComputedStyle(bar).borderLeftColor") for bar in bars.all()]
    assert colours[1] == "rgb(224, 130, 20)"
    assert colours[0] == "rgb(128, 115, 172)"
    bars.nth(2).click()
    expect(panel.locator("h2")).to_have_text(f"Why “{names[1]}”, not “{names[2]}”?")
    pressed = bars.evaluate_all("bars => bars.map(bar => bar.getAttribute('aria-pressed'))")
    assert pressed == ["false", "true", "true", "false", "false"]
    bars.nth(1).click()  # the other one is the first now
    bars.nth(0).click()
    expect(panel.locator("h2")).to_have_text(f"Why “{names[2]}”, not “{names[0]}”?")


@pytest.mark.parametrize(("width", "scheme"), [(1024, "dark"), (380, "light")])
def test_a_second_opinion_takes_one_click(window, width, scheme):
    visit = window(width=width, height=768, color_scheme=scheme).open()
    visit.sample("coffee").choose("gradient").explain()
    visit.find("#ul-second").click()
    panel = visit.find("#ul-opinion")
    said = panel.locator("p").first
    expect(said).to_contain_text(re.compile(r"three methods share \d+ % of their strongest tenth"))
    expect(said).to_contain_text(re.compile(r"edges, which .* share \d+ % with them: "))
    expect(panel.locator("h2")).to_be_in_viewport()
    pictures = panel.locator("img")
    assert pictures.count() == 5
    for picture in pictures.all():
        box = picture.bounding_box()
        assert box["width"] > 100
        assert box["x"] + box["width"] <= width
    for text in panel.locator("p:visible, h2, figcaption, summary").all():
        assert text.evaluate(CONTRAST)[0] >= 4.5
    numbers = panel.locator("details li")
    assert not numbers.first.is_visible()
    panel.locator("summary").press("Enter")
    expect(numbers.first).to_be_visible()
    assert numbers.count() == 6
    visit.choose("ig").explain()
    expect(panel.locator("h2")).to_have_count(0)

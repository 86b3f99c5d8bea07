"""The page in a browser, as a visitor uses it."""

import base64
import json
import re

import numpy
import pytest
from PIL import Image

from unilens.app.wording import title_of
from unilens.models import samples

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=120_000)

CONTRAST = """
element => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map(i => alpha * top[i] + (1 - alpha) * under[i]);
  };
  const light = colour => {
    const [r, g, b] = colour.map(value => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    layers.unshift(parse(getComputedStyle(one).backgroundColor));
  }
  const under = layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
  const text = light(over(parse(getComputedStyle(element).color), under)), back = light(under);
  return [(Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05), back];
}
"""
"""From an element to the contrast of its text by WCAG 2, and how bright its background is."""


@pytest.fixture
def own(tmp_path):
    """Return a JPEG that is no sample."""
    path = tmp_path / "own cat.jpg"
    samples["chelsea"]().crop((60, 0, 400, 290)).save(path, quality=90)
    return path


def upload(visit, path):
    visit.find("#ul-photograph input[type=file]").set_input_files(path)


def error(visit):
    """Return the one line that an error is told in."""
    lines = visit.find(".toast-body.error [data-testid=toast-text]")
    expect(lines).to_have_count(1)
    return lines.inner_text().strip()


def too_wide(visit):
    """Return what reaches beyond the right edge; a box that scrolls by itself would hide it."""
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 380
    return visit.page.evaluate("""
      [...document.querySelectorAll("body *:not(svg *)")]
        .filter(one => one.checkVisibility() && one.getBoundingClientRect().right > 381)
        .map(one => one.outerHTML.slice(0, 80))
    """)


def test_an_own_photograph_is_recognised_as_what_it_is(visit, own):
    upload(visit, own)
    expect(visit.find("#ul-predictions li")).to_have_count(5)
    expect(visit.find("#ul-predictions li").first).to_contain_text(re.compile("cat|tabby"))
    expect(visit.find("#ul-predictions .ul-small")).to_contain_text("340 × 290 pixels")


def test_a_map_explains_the_class_that_was_chosen(visit):
    visit.sample().choose("gradient").target("lynx").explain()
    expect(visit.find(".ul-maps h2")).to_have_text("Why “lynx”?")


def test_without_a_photograph_the_page_says_what_it_needs(visit):
    visit.page.get_by_role("button", name="Remove Image").click()
    expect(visit.find("#ul-predictions li")).to_have_count(0)
    visit.find("#ul-explain").click()
    assert error(visit) == "expected a photograph; drop one, or pick a sample"


def test_four_methods_stand_side_by_side_and_every_picture_has_a_text(visit):
    names = ("uni", "ig", "gradient", "gradcam")
    visit.sample().choose(*names).explain(4)
    cards = visit.find(".ul-maps article")
    assert cards.locator("h3 code").all_inner_texts() == list(names)
    texts = cards.locator("img").evaluate_all("images => images.map(one => one.alt)")
    assert len(texts) == 4 * 5 + 2  # two have a baseline
    assert all(texts)
    tops = {round(card.bounding_box()["y"]) for card in cards.all()}
    assert len(tops) == 1


def test_the_opacity_of_the_overlay_is_changed_without_the_server(visit):
    visit.sample().choose("gradient").explain()
    layer = visit.find(".ul-overlay")
    expect(layer).to_have_css("opacity", "0.85")
    visit.page.wait_for_timeout(1000)  # until nothing of the work before is under way
    asked = list(visit.asked)
    visit.find("#ul-opacity input[type=range]").focus()
    visit.page.keyboard.press("Home")
    expect(layer).to_have_css("opacity", "0")
    assert visit.asked == asked


def test_long_work_is_cancelled_and_the_next_begins(visit):
    visit.sample().settle().choose("rise").find("#ul-explain").click()
    for place in ("#ul-status", "#ul-maps"):
        expect(visit.find(f"{place} [role=progressbar]")).to_have_attribute("aria-label", "RISE")
    visit.find("#ul-cancel").click()
    expect(visit.find("#ul-status")).to_contain_text("Cancelled.", timeout=10_000)
    expect(visit.find(".ul-maps h3 code")).to_have_text("uni_blur")
    visit.choose("gradient").explain()
    expect(visit.find(".ul-maps h3 code")).to_have_text("gradient")


def test_the_slower_checks_show_two_charts_and_their_answers(visit):
    visit.sample().choose("gradient").explain()
    expect(visit.find("#ul-path-view")).to_contain_text("None of the chosen methods has")
    visit.find("#ul-check").click()
    visit.find(".ul-checks").wait_for()
    charts = visit.find(".ul-checks svg.ul-chart")
    assert charts.count() == 2
    for chart in charts.all():
        assert chart.locator("polyline").count() == 2  # gradient, and the control
        assert "random map: area 0." in chart.get_attribute("aria-label")
    levels = visit.find(".ul-checks td .ul-level").all_inner_texts()
    assert len(levels) == 4
    assert set(levels) <= {"good", "caution", "problem", "not measured"}


def test_what_is_taken_along_restores_the_page_in_another_browser(window, own, tmp_path):
    visit = window().open()
    upload(visit, own)
    visit.find("#ul-predictions li").first.wait_for()
    visit.open_part("ul-advanced").find("#ul-seed input").fill("7")
    visit.choose("gradient", "gradcam").target("tabby").explain(2)
    visit.open_part("ul-take").find("#ul-prepare").click()
    links = visit.find("#ul-files a[download]")
    expect(links).to_have_count(5)
    saved = {}
    for link in links.all():
        with visit.page.expect_download() as waiting:
            link.click()
        name = waiting.value.suggested_filename
        waiting.value.save_as(tmp_path / name)
        saved[name.removeprefix("own-cat-unilens")] = tmp_path / name
    assert set(saved) == {".png", ".safetensors", ".json", ".py", "-page.json"}
    with Image.open(saved[".png"]) as panel:
        panel.load()
    compile(saved[".py"].read_text(), "code", "exec")
    state = json.loads(saved["-page.json"].read_text())
    assert base64.b64decode(state["photograph"]["data"]) == own.read_bytes()

    other = window().open()
    with other.page.expect_file_chooser() as chooser:
        other.find("#ul-restore").click()
    chooser.value.set_files(saved["-page.json"])
    expect(other.find("#ul-predictions .ul-small")).to_contain_text("340 × 290 pixels")
    expect(other.find(".ul-maps .ul-cards")).to_have_attribute("data-count", "2")
    assert set(other.chosen()) == {"Gradient", "Grad-CAM"}
    expect(other.find("#ul-target input")).to_have_value("tabby")
    expect(other.open_part("ul-advanced").find("#ul-seed input")).to_have_value("7")
    expect(other.find(".ul-maps h2")).to_have_text("Why “tabby”?")
    before, after = (one.find(".ul-overlay").first.get_attribute("src") for one in (visit, other))
    assert before == after


def test_link_is_absolute_and_in_the_address_bar_and_explains(window):
    visit = window().open().sample().settle().choose("ig")
    setting = visit.open_part("ul-advanced").page.get_by_label("n steps")
    visit.enter(setting, "3").explain()
    link = visit.open_part("ul-take").find("#ul-link :is(input, textarea)").input_value()
    assert link == visit.page.url
    address, text = link.split("?state=")
    assert address == visit.address
    state = json.loads(base64.urlsafe_b64decode(text + "=="))
    assert state["request"]["methods"] == [{"name": "ig", "settings": {"n_steps": 3}}]
    other = window().open("?state=" + text)
    assert other.chosen() == [title_of("ig")]
    expect(other.open_part("ul-advanced").page.get_by_label("n steps")).to_have_value("3")
    expect(other.find(".ul-maps h3 code")).to_have_text("ig")
    before, after = (one.find(".ul-overlay").get_attribute("src") for one in (visit, other))
    assert before == after


def test_own_photograph_leaves_no_link_in_the_address_bar(window, own):
    visit = window().open().sample("rocket").settle()
    assert "?state=" in visit.page.url
    upload(visit, own)
    expect(visit.find("#ul-predictions")).to_contain_text("own cat.jpg")
    expect(visit.settle().page).to_have_url(visit.address)
    expect(visit.open_part("ul-take").find("#ul-link :is(input, textarea)")).to_have_value("")


def test_link_of_a_program_explains_its_class(window):
    request = {
        "model": "efficientnet_lite0",
        "methods": [{"name": "gradient"}],
        "target": 282,
        "seed": 3,
    }
    state = json.dumps({"unilens_page": 1, "sample": "coffee", "request": request})
    visit = window().open("?state=" + base64.urlsafe_b64encode(state.encode()).decode())
    expect(visit.find(".ul-maps h2")).to_have_text("Why “tiger cat”?")
    expect(visit.find("#ul-predictions .ul-small")).to_contain_text("coffee.png")
    assert visit.chosen() == ["Gradient"]
    expect(visit.find("#ul-target input")).to_have_value("tiger cat")


def test_a_broken_link_is_told_in_one_line(window):
    visit = window().open("?state=%00nonsense")
    assert error(visit) == "expected a link that this page has made, got a broken one"


def test_what_is_no_photograph_is_told_in_one_line(visit, tmp_path):
    path = tmp_path / "text.jpg"
    path.write_text("not a photograph")
    upload(visit, path)
    said = error(visit)
    assert said.startswith("expected a photograph (JPEG")
    assert said.endswith("text.jpg is none that can be read")


def test_a_file_that_is_too_large_is_told_in_one_line(visit, tmp_path):
    path = tmp_path / "large.bmp"
    noise = numpy.random.default_rng(0).integers(0, 256, (2700, 2700, 3), dtype=numpy.uint8)
    Image.fromarray(noise).save(path)
    upload(visit, path)
    assert error(visit).startswith("expected a photograph of at most 20 MB, got 21 MB")


def test_a_narrow_screen_needs_no_scrolling_sideways(window):
    visit = window(width=380, height=800).open()
    assert too_wide(visit) == []
    visit.sample().choose("ig", "gradient").explain(2)
    visit.find(".ul-path-steps").wait_for(state="attached")
    for part in ("ul-path", "ul-trust-part", "ul-take", "ul-advanced"):
        visit.open_part(part)
    assert too_wide(visit) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_in_dark(window, scheme):
    visit = window(color_scheme=scheme).open().sample().choose("ig", "gradient").explain(2)
    visit.find(".ul-path-steps").wait_for()
    expect(visit.find("#ul-trust")).to_contain_text("Does the map stay with more steps?")
    dark = visit.find("body").evaluate(CONTRAST)[1] < 0.1
    assert dark == (scheme == "dark")
    for kind in (".ul-small", ".ul-verdict", ".ul-level", "figcaption", ".ul-summary"):
        parts = visit.find(f"{kind}:visible")
        assert parts.count(), kind
        for part in parts.all():
            contrast, back = part.evaluate(CONTRAST)
            assert contrast >= 4.5, (kind, part.inner_text(), contrast)
            assert (back < 0.2) == dark, kind


def test_everything_is_reached_by_the_keyboard_alone(visit):
    visit.choose("gradient").find(".ul-more").click()
    visit.page.mouse.click(5, 5)
    expected = ["ul-sample", "ul-explain", "ul-cancel", "ul-target", "ul-methods", "ul-more"]
    expected += ["ul-advanced", "ul-restore"]
    met = []
    for _ in range(40):
        visit.page.keyboard.press("Tab")
        met.append(visit.page.evaluate("document.activeElement.closest('[id^=ul-]')?.id"))
        if met[-1] == "ul-sample" and met.count("ul-sample") == 3:
            visit.page.keyboard.press("Enter")
        if met[-1] == "ul-restore":
            break
    assert [name for name in dict.fromkeys(met) if name in expected] == expected
    expect(visit.find("#ul-predictions")).to_contain_text("rocket.png")
    expect(visit.find(".ul-maps h3 code")).to_have_text("gradient")

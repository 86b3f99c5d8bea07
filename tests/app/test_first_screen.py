"""What a visitor meets first: samples, one explained, and few clicks to a map of one's own."""

import re

import pytest

from unilens.app.opening import SAMPLE
from unilens.app.wording import RECOMMENDED, title_of
from unilens.models import samples

from .test_page import CONTRAST, upload

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=120_000)
SCREENS = {1600: 1000, 1024: 768, 380: 800}
"""Heights of screens by their widths."""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "my cat.png"
    samples["chelsea"]().resize((320, 240)).save(path)
    return path


def in_view(visit, selector):
    """Return whether an element is on the screen from its top to its bottom."""
    box, size = visit.find(selector).bounding_box(), visit.page.viewport_size
    return box["y"] >= 0 and box["y"] + box["height"] <= size["height"]


@pytest.mark.parametrize("width", SCREENS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_first_screen_has_samples_one_explained_and_the_button(window, width, scheme):
    visit = window(width=width, height=SCREENS[width], color_scheme=scheme).open()
    buttons = visit.find("#ul-sample button")
    assert buttons.count() == 6
    assert len(set(buttons.evaluate_all("all => all.map(one => one.ariaLabel)"))) == 6
    pressed = visit.find("#ul-sample button[aria-pressed=true]")
    assert pressed.get_attribute("data-sample") == SAMPLE
    expect(visit.find(".ul-maps h2")).to_have_text("Why “espresso”?")
    assert in_view(visit, "#ul-explain")
    photograph, explain = (visit.find(f"#ul-{name}") for name in ("photograph", "explain"))
    gap = explain.bounding_box()["y"] - sum(
        photograph.bounding_box()[side] for side in ("y", "height")
    )
    assert 0 <= gap <= 20
    assert visit.page.evaluate("scrollY") == 0
    assert visit.page.url == visit.address
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= width


def test_pressed_sample_is_explained(visit):
    visit.sample("rocket")
    expect(visit.find(".ul-maps h2")).to_have_text("Why “missile”?")
    expect(visit.find("#ul-sample [aria-pressed=true]")).to_have_attribute("data-sample", "rocket")


def test_dropped_photograph_is_explained_for_its_own_class(visit, own):
    visit.sample("rocket").settle().target("lynx")
    expect(visit.find("#ul-outdated")).to_contain_text("The choices have changed")
    upload(visit, own)
    expect(visit.find(".ul-maps h2")).to_have_text(re.compile("cat|tabby"))
    expect(visit.find("#ul-target input")).to_have_value(re.compile("^the class predicted: "))
    expect(visit.find("#ul-predictions .ul-small")).to_contain_text("320 × 240 pixels")
    assert visit.find("#ul-sample [aria-pressed=true]").count() == 0


def test_changed_choices_veil_the_maps_until_they_are_explained_or_changed_back(visit):
    opacity = "element => getComputedStyle(element).opacity"
    maps = visit.find("#ul-maps")
    assert maps.evaluate(opacity) == "1"
    visit.find(".ul-more").click()
    visit.method("gradient").check()
    expect(visit.find("#ul-outdated [role=status]")).to_be_visible()
    expect(maps).to_have_css("opacity", "0.35")
    visit.method("gradient").uncheck()
    expect(visit.find("#ul-outdated [role=status]")).to_have_count(0)
    expect(maps).to_have_css("opacity", "1")
    visit.open_part("ul-advanced").find("#ul-seed input").fill("5")
    visit.page.get_by_role("button", name="Explain again").click()
    visit.settle()
    expect(maps).to_have_css("opacity", "1")
    assert "?state=" in visit.page.url


def test_three_methods_are_shown_and_the_others_behind_a_button(visit):
    labels = visit.find("#ul-methods label:visible")
    assert labels.all_inner_texts() == [title_of(name) for name in RECOMMENDED]
    visit.find(".ul-more").click()
    expect(visit.find(".ul-more")).to_have_attribute("aria-expanded", "true")
    assert labels.count() > 20
    visit.method("rise").check()
    visit.find(".ul-more").click()
    shown = [title_of(name) for name in (*RECOMMENDED, "rise")]
    assert labels.all_inner_texts() == shown  # what is chosen stays


def test_methods_that_do_not_fit_the_model_are_not_offered(visit):
    offered = set(visit.find("#ul-methods input").evaluate_all("all => all.map(one => one.name)"))
    assert {"uni_blur", "ig", "occlusion", "edges"} <= offered
    assert not offered & {"rollout", "gradient_rollout", "legrad", "neutral"}


def test_settings_say_what_they_mean_and_their_default(visit):
    steps = visit.open_part("ul-advanced").page.get_by_label("n steps")
    help_ = steps.locator("xpath=ancestor::*[contains(@class, 'block')][1]")
    expect(help_).to_contain_text("Nodes on the path. Default: 15.")


def test_result_scrolls_into_view_on_a_narrow_screen(window):
    visit = window(width=380, height=800, reduced_motion="reduce").open()
    assert not in_view(visit, ".ul-maps h2")
    visit.sample("rocket").settle()
    expect(visit.find(".ul-maps h2")).to_have_text("Why “missile”?")
    visit.page.wait_for_function("scrollY > 300")
    assert in_view(visit, ".ul-maps h2")


def test_narrow_screen_shows_one_method_on_three_screens(window):
    visit = window(width=380, height=800).open()
    visit.find(".ul-path-steps").wait_for(state="attached")
    assert visit.page.evaluate("document.documentElement.scrollHeight") <= 3 * 800


def test_work_is_announced_and_shown_on_the_button(visit):
    expect(visit.find("#ul-status")).to_have_attribute("aria-live", "polite")
    visit.choose("rise").find("#ul-explain").click()
    visit.find("#ul-status [role=progressbar]").wait_for()
    assert in_view(visit, "#ul-status")
    expect(visit.find("#ul-explain")).to_have_css("cursor", "progress")
    visit.find("#ul-cancel").click()
    expect(visit.find("#ul-explain")).to_have_css("cursor", "pointer")


def test_another_sample_does_not_wait_for_the_work_before(visit):
    visit.choose("rise").sample("astronaut")
    visit.find("#ul-status [role=progressbar]").wait_for()
    visit.choose("gradient").sample("rocket").settle()
    expect(visit.find(".ul-maps h3 code")).to_have_text("gradient")
    expect(visit.find(".ul-maps h2")).to_have_text("Why “missile”?")
    assert visit.find(".toast-body.error").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_curves_and_chips_can_be_seen_in_light_and_in_dark(window, scheme):
    visit = window(color_scheme=scheme).open()
    curve = visit.find(".ul-path-steps polyline").last
    assert curve.evaluate(CONTRAST)[0] >= 3
    for chip in visit.find("#ul-methods label:visible").all():
        assert chip.evaluate(CONTRAST)[0] >= 4.5

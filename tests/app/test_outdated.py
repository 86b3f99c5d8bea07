"""What is on the page belongs to the choices, or is veiled, or gone."""

import pytest

from .test_page import error, upload

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=120_000)


def veiled(visit):
    expect(visit.find("#ul-outdated [role=status]")).to_be_visible()
    expect(visit.find("#ul-maps")).to_have_css("opacity", "0.35")


def test_every_choice_veils_the_maps(visit):
    visit.sample("coffee").choose("ig").explain().open_part("ul-advanced")
    steps, seed = visit.page.get_by_label("n steps"), visit.find("#ul-seed input")
    baseline = visit.page.get_by_role("combobox", name="baseline")
    expect(visit.find("#ul-maps")).to_have_css("opacity", "1")
    for field, other in ((steps, "7"), (seed, "3")):
        before = field.input_value()
        for value, check in ((other, veiled), (before, unveiled)):
            visit.enter(field, value)
            check(visit)
    baseline.click()
    visit.page.get_by_role("option", name="blur", exact=True).click()
    veiled(visit)
    expect(visit.page.get_by_label("sigma")).to_have_value("15")  # a setting of its own
    visit.explain()
    expect(baseline).to_have_value("blur")
    visit.target("lynx")
    veiled(visit)


def unveiled(visit):
    expect(visit.find("#ul-outdated [role=status]")).to_have_count(0)
    expect(visit.find("#ul-maps")).to_have_css("opacity", "1")


def test_refused_photograph_leaves_no_predictions_and_no_work(visit, tmp_path):
    path = tmp_path / "fake.png"
    path.write_text("no photograph")
    upload(visit, path)
    assert "none that can be read" in error(visit)
    expect(visit.find("#ul-predictions button")).to_have_count(0)
    veiled(visit)
    expect(visit.find("#ul-explain")).to_have_css("cursor", "pointer")
    expect(visit.find("#ul-explain")).to_have_css("opacity", "1")
    expect(visit.find("#ul-status .ul-small")).to_have_count(0)


def test_new_maps_take_away_what_belonged_to_the_ones_before(visit):
    visit.find(".ul-path-steps[data-label=espresso]").wait_for()
    visit.choose("gradient").explain()
    visit.find("#ul-check").click()
    visit.find(".ul-checks").wait_for()
    visit.choose("uni_blur").sample("rocket")
    expect(visit.find(".ul-maps h2")).to_have_text("Why “missile”?")
    visit.find("#ul-cancel").click()
    expect(visit.find(".ul-checks")).to_have_count(0)
    expect(visit.find("[data-label=espresso]")).to_have_count(0)


def test_last_of_two_bars_counts_while_another_pair_is_explained(visit):
    bars = visit.find("#ul-predictions button")
    names = bars.locator(".ul-label").all_inner_texts()
    for number in (0, 1, 2, 3):
        bars.nth(number).click()
    title = f"Why “{names[0]}”, not “{names[3]}”?"
    expect(visit.find("#ul-contrast h2")).to_have_text(title)
    seed = visit.open_part("ul-advanced").find("#ul-seed input")
    seed.fill("4")
    expect(visit.find("#ul-contrast h2")).to_have_count(0)

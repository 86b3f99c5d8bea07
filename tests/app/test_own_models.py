"""The page with models of a visitor's own: one output, labels, and another model in between."""

import base64
import json

import pytest

from .conftest import serving, windows
from .test_page import error

expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
expect.set_options(timeout=120_000)

SINGLE, LABELS, CLASSES = "py:own_models:single", "py:own_models:labels", "efficientnet_lite0"


@pytest.fixture(scope="module")
def own_server(tmp_path_factory):
    log = tmp_path_factory.mktemp("own") / "log.txt"
    with serving(log, "--model", SINGLE, "--model", LABELS) as address:
        yield address


@pytest.fixture
def own_window(own_server, browser):
    with windows(own_server, browser) as new:
        yield new


def use(visit, model):
    visit.find("#ul-model input").click()
    visit.page.get_by_role("option", name=model, exact=True).click()


def test_outputs_are_named_as_what_they_are_and_another_model_veils(own_window):
    visit = own_window().open()
    bars, note = visit.find("#ul-predictions button"), visit.find("#ul-predictions .ul-small")
    expect(note).to_contain_text("The model has one output.")
    expect(visit.find("#ul-target input")).to_have_value("the only output: class 0")
    expect(bars).to_have_count(1)
    expect(bars).to_be_disabled()
    use(visit, LABELS)
    expect(note).to_contain_text("Any number of these labels can apply.")
    expect(visit.find("#ul-outdated [role=status]")).to_be_visible()
    expect(visit.find("#ul-maps")).to_have_css("opacity", "0.35")
    expect(visit.find("#ul-target input")).to_have_value("the most probable label: class 0")
    expect(bars).to_have_count(3)
    assert all(bar.is_disabled() for bar in bars.all())
    use(visit, CLASSES)
    expect(note).to_contain_text("Choose two bars")
    visit.target("lynx").explain()
    bars.nth(0).click()
    bars.nth(1).click()
    expect(visit.find("#ul-contrast h2")).to_have_count(1)
    use(visit, LABELS)
    expect(visit.find("#ul-contrast h2")).to_have_count(0)
    expect(visit.find("#ul-target input")).to_have_value("the most probable label: class 0")
    visit.explain()
    expect(visit.find(".ul-maps h2")).to_have_text("Why “class 0”?")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"model": CLASSES, "target": 5000}, "expected a class between 0 and 999, got 5000"),
        ({"model": LABELS, "methods": [{"name": "rollout"}]}, "attention"),
        ({"model": "resnet50"}, "unknown model 'resnet50'"),
    ],
)
def test_link_that_cannot_be_explained_is_told_in_one_line(own_window, request_, said):
    request_ = {"methods": [{"name": "gradient"}], **request_}
    state = json.dumps({"unilens_page": 1, "sample": "coffee", "request": request_})
    visit = own_window().open("?state=" + base64.urlsafe_b64encode(state.encode()).decode())
    line = error(visit)
    assert said in line
    assert "list of choices" not in line
    if request_["methods"] == [{"name": "rollout"}]:
        assert visit.chosen() == ["Attention rollout"]

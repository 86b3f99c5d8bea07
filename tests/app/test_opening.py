"""What is ready when the page opens, and the words that it has for methods and settings."""

import threading
import time

import pytest

pytest.importorskip("gradio")

from unilens.app import opening as opening_module
from unilens.app.jobs import Job
from unilens.app.opening import Opening
from unilens.app.request import setting_fields
from unilens.app.runner import JobRunner
from unilens.app.service import ExplainService
from unilens.app.wording import RECOMMENDED, TITLES, by_recommendation, setting_help
from unilens.methods import methods


def test_every_method_has_a_title_of_its_own():
    assert set(TITLES) == set(methods)
    assert len(set(TITLES.values())) == len(TITLES)


@pytest.mark.parametrize("method", methods)
def test_every_setting_has_a_meaning_and_its_default(method):
    for field in setting_fields(method):
        meaning, _, default = setting_help(method, field, {}).rpartition(" Default: ")
        assert len(meaning) > 10, field.name
        words = {"True": "on", "False": "off", "None": "none"}
        assert default == words.get(str(field.default), str(field.default)) + "."


def test_help_is_of_the_component_that_is_chosen():
    field = next(
        field for field in setting_fields("ig", {"baseline": "blur"}) if "sigma" in field.name
    )
    assert setting_help("ig", field, {"baseline": "blur"}) != f"Default: {field.default}."
    assert setting_help("ig", field, {}) == f"Default: {field.default}."


def test_recommended_methods_come_first_and_only_where_they_fit():
    names = [name for _, name in by_recommendation(["ig", "gradcam", "uni_blur"])]
    assert names == ["uni_blur", "gradcam", "ig"]
    assert [title for title, _ in by_recommendation(["gradcam"])] == ["Grad-CAM"]


def test_the_same_work_of_two_visitors_is_done_once():
    runner, started, count = JobRunner(), threading.Event(), []

    def compute():
        started.set()
        count.append(time.sleep(0.2))
        return len(count)

    threads = [threading.Thread(target=runner.run, args=("key", Job(), compute)) for _ in range(2)]
    threads[0].start()
    assert started.wait(10)
    threads[1].start()
    for thread in threads:
        thread.join(10)
    assert len(count) == 1


def test_methods_are_offered_by_what_they_say_of_the_model(monkeypatch):
    asked, answered, may_answer = [], threading.Event(), threading.Event()

    def applies(name, photograph, model):
        assert may_answer.wait(10)
        asked.append(name)
        if len(asked) == len(methods):
            answered.set()
        return name in ("uni_blur", "rollout")

    service = ExplainService(["small"])
    monkeypatch.setattr(service, "applies", applies)
    monkeypatch.setattr(opening_module, "sample_photograph", lambda name: None)
    page = Opening(service)
    first = page.methods_for("small")
    may_answer.set()
    assert "ig" in first
    assert "rollout" not in first
    assert answered.wait(10)
    assert asked[:3] == list(RECOMMENDED)
    until = time.monotonic() + 10
    while page.methods_for("small") != ["uni_blur", "rollout"] and time.monotonic() < until:
        time.sleep(0.01)
    assert page.methods_for("small") == ["uni_blur", "rollout"]
    assert len(asked) == len(methods)

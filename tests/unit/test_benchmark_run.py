"""A run writes every row once, whatever is broken, interrupted, reordered or resumed."""

import functools
import logging
import math
import os
import sys

import numpy
import pytest
import torch
from PIL import Image

from unilens import Evaluator
from unilens._engine.evaluator import PassCount
from unilens.attribution import Attribution
from unilens.benchmark import runner
from unilens.benchmark.plan import make_plan
from unilens.benchmark.rows import MEASURED_TIME
from unilens.benchmark.runner import planned_rows
from unilens.benchmark.store import LOG, Store, folder_lock
from unilens.errors import UnilensError
from unilens.explainer import Method
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.models import read_image
from unilens.registry import Card

MODEL = """
import torch
from torch import nn
from unilens.models import PixelClassifier, Preprocessing

def tiny(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )
    with torch.no_grad():
        network[-1].weight.mul_(8)
    labels = ("tench", "bulbul", "frog", "conch", "stork")
    size = Preprocessing((20, 20), 20, (0.5,) * 3, (0.25,) * 3)
    return PixelClassifier(network, size, labels)

def other():
    return tiny(1)
"""
METHODS = ["uni", "ig", "gradient", "input_x_gradient"]
run = functools.partial(runner.run, allow_code=True)
METRICS = ["mu_fidelity:subsets=12,cells=4", "deletion_auc", "monotonicity"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    (tmp_path / "tiny_models.py").write_text(MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_models", raising=False)
    folder = tmp_path / "photos"
    folder.mkdir()
    drawn = numpy.random.default_rng(0)
    for number in range(4):
        small = drawn.integers(0, 256, (5, 6, 3), dtype=numpy.uint8)
        Image.fromarray(small).resize((40, 30)).save(folder / f"{number}.png")
    return folder


def plan_of(photos, **more):
    data = {"source": str(photos)} | more.pop("data", {})
    said = {"models": ["py:tiny_models:tiny"], "methods": METHODS, "metrics": METRICS}
    return make_plan({**said, "settings": {"n_steps": 4}, **more, "data": data})


def lasting(folder):
    """Return all that a run says but for the time it took."""
    kept = Store(folder).table(Store(folder).dataset().schema.names).drop_columns(MEASURED_TIME)
    return kept.to_pylist()


def test_every_planned_row_is_there_once(photos, tmp_path):
    plan = plan_of(photos, models=["py:tiny_models:tiny", "py:tiny_models:other"])
    outcome = run(plan, tmp_path / "run")
    assert planned_rows(plan) == (4, 4 * 2 * 4 * 3)
    rows = lasting(tmp_path / "run")
    assert (outcome.written, outcome.before, outcome.failed) == (96, 0, 0)
    assert (
        len({(r["image"], r["model"], r["method"], r["metric"]) for r in rows}) == len(rows) == 96
    )


def test_a_row_says_what_the_method_and_the_metric_say_when_called_by_themselves(photos, tmp_path):
    run(plan_of(photos, seed=3), tmp_path / "run")
    import tiny_models

    model = tiny_models.tiny()
    pixels = model.preprocess(read_image(photos / "2.png"))[None]
    attribution = methods["uni"](n_steps=4)(model, pixels, seed=3)
    found = metrics["mu_fidelity"](subsets=12, cells=4)(model, pixels, attribution, seed=3)
    curve = metrics["deletion_auc"]()(model, pixels, attribution, seed=3)
    rows = {
        one["metric"]: one
        for one in lasting(tmp_path / "run")
        if (one["image"], one["method"]) == ("2.png", "uni")
    }
    one = rows[METRICS[0]]
    assert one["value"] == float(found.values)
    assert one["target"] == one["predicted"] == int(attribution.target)
    assert one["confidence"] == float(attribution.confidence)
    assert one["warnings"] == attribution.warnings[0]
    assert (one["forward"], one["backward"]) == methods["uni"](n_steps=4).passes
    assert (one["seed"], one["status"], one["reason"]) == (3, "ok", None)
    assert dict(rows["deletion_auc"]["curves"])["curve"] == curve.details["curve"][0].tolist()


def test_a_metric_that_does_not_fit_is_no_failure(photos, tmp_path):
    outcome = run(plan_of(photos), tmp_path / "run")
    rows = [
        one
        for one in lasting(tmp_path / "run")
        if (one["method"], one["metric"]) == ("gradient", "monotonicity")
    ]
    assert {one["status"] for one in rows} == {"inapplicable"}
    assert all("baseline" in one["reason"] and one["value"] is None for one in rows)
    assert outcome.failed == 0


def test_rows_do_not_depend_on_batch_order_or_threads(photos, tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads)  # from here on MKL has a number of its own
    run(plan_of(photos), tmp_path / "run")
    torch.set_num_threads(1)
    try:
        other = plan_of(photos, methods=METHODS[::-1], metrics=METRICS[::-1])
        run(other, tmp_path / "other")
    finally:
        torch.set_num_threads(threads)
    assert content(tmp_path / "other") == content(tmp_path / "run")


def content(folder):
    """Return the rows without the pictures, which lie in the first row of each map."""
    return [{k: v for k, v in one.items() if k != "picture"} for one in lasting(folder)]


def test_what_is_done_is_not_done_again(photos, tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    run(plan_of(photos, data={"limit": 2}), tmp_path / "run")
    assert calls == {"ig": 2}
    outcome = run(plan_of(photos, data={"limit": 2}), tmp_path / "run")
    assert calls == {"ig": 2}
    assert (outcome.written, outcome.before) == (0, 24)
    run(plan_of(photos, metrics=[*METRICS, "insertion_auc"]), tmp_path / "run")
    assert calls == {"ig": 2 + 4}
    run(plan_of(photos, metrics=[*METRICS, "insertion_auc"]), tmp_path / "whole")
    assert content(tmp_path / "run") == content(tmp_path / "whole")


def counted(monkeypatch):
    """Count the maps of one method."""
    from unilens.path_attribution import PathAttribution

    calls: dict[str, int] = {}
    explain = PathAttribution._explain

    def counting(self, case):
        if type(self.baseline).__name__ == "Constant":
            calls["ig"] = calls.get("ig", 0) + 1
        return explain(self, case)

    monkeypatch.setattr(PathAttribution, "_explain", counting)
    return calls


def test_a_map_is_made_once_for_all_metrics(photos, tmp_path, monkeypatch):
    calls = counted(monkeypatch)
    run(plan_of(photos, methods=["ig"]), tmp_path / "run")
    assert calls == {"ig": 4}


def test_an_unreadable_image_costs_its_own_rows(photos, tmp_path):
    run(plan_of(photos), tmp_path / "whole")
    (photos / "1.png").write_bytes(b"\x89PNG no more")
    outcome = run(plan_of(photos), tmp_path / "run")
    rows = lasting(tmp_path / "run")
    bad = [one for one in rows if one["image"] == "1.png"]
    assert outcome.failed == len(bad) == 12
    assert all(one["status"] == "failed" and "1.png" in one["reason"] for one in bad)
    good = [one for one in lasting(tmp_path / "whole") if one["image"] != "1.png"]
    assert [one for one in rows if one["image"] != "1.png"] == good
    assert "1.png" in (tmp_path / "run" / LOG).read_text()


class Broken(Method):
    """Raises, or makes maps that are no numbers."""

    passes = PassCount(1, 0)

    def __init__(self, how: str = "raise") -> None:
        self.how = how

    def _explain(self, case):
        if self.how == "raise":
            raise ZeroDivisionError("in the\nmethod")
        values = torch.full_like(case.inputs, math.nan)
        return Attribution(values, case.target, case.outputs[:, 0], case.outputs)


@pytest.fixture
def broken(monkeypatch):
    entries = dict(methods._entries)
    monkeypatch.setattr(methods, "_entries", entries)
    methods.add(Card("broken", "test", "raises", "none"), Broken)


def test_a_method_that_raises_costs_its_own_rows(photos, tmp_path, broken):
    outcome = run(plan_of(photos, methods=["broken", "ig"]), tmp_path / "run")
    rows = lasting(tmp_path / "run")
    bad = [one for one in rows if one["method"] == "broken"]
    assert outcome.failed == len(bad) == 12
    assert {one["reason"] for one in bad} == {"ZeroDivisionError: in the"}
    assert all(one["status"] == "ok" for one in rows if one["method"] == "ig")
    assert "Traceback" in (tmp_path / "run" / LOG).read_text()


def test_failed_rows_stay_until_they_are_asked_for_again(photos, tmp_path, broken, monkeypatch):
    plan = plan_of(photos, methods=["broken", "ig"])
    run(plan, tmp_path / "run")
    assert run(plan, tmp_path / "run").written == 0
    monkeypatch.setattr(Broken, "_explain", lambda self, case: good(case))
    outcome = run(plan, tmp_path / "run", retry_failed=True)
    assert (outcome.written, outcome.failed) == (12, 0)
    assert len(lasting(tmp_path / "run")) == 24


def test_references_that_are_not_there_yet_are_a_failure_that_can_be_mended(photos, tmp_path):
    folder = tmp_path / "references"
    plan = plan_of(photos, methods=[f"expected_gradients:references={folder},n_steps=2"])
    outcome = run(plan, tmp_path / "run")
    assert outcome.failed == outcome.written == 12
    assert {one["status"] for one in lasting(tmp_path / "run")} == {"failed"}
    folder.mkdir()
    (folder / "0.png").write_bytes((photos / "0.png").read_bytes())
    outcome = run(plan, tmp_path / "run", retry_failed=True)
    assert (outcome.written, outcome.failed) == (12, 0)


def good(case):
    return Attribution(case.inputs, case.target, case.outputs[:, 0], case.outputs)


def test_a_map_that_is_no_numbers_is_undefined_and_says_so(photos, tmp_path, broken):
    plan = plan_of(photos, methods=["broken:how=nan"], metrics=METRICS[:2], settings={})
    assert run(plan, tmp_path / "run").failed == 0
    for one in lasting(tmp_path / "run"):
        assert (one["status"], one["value"]) == ("undefined", None)
        assert one["warnings"] == ["undefined"]


def test_labels_can_be_what_is_explained(photos, tmp_path):
    for number in range(4):
        name = ("frog", "conch")[number % 2]
        (photos / name).mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / name / f"{number}.png")
    run(plan_of(photos, target="label"), tmp_path / "run")
    rows = lasting(tmp_path / "run")
    assert {(one["image"].split("/")[0], one["target"], one["label"]) for one in rows} == {
        ("frog", 2, 2),
        ("conch", 3, 3),
    }


def test_without_a_label_the_rows_say_so(photos, tmp_path):
    outcome = run(plan_of(photos, target="label"), tmp_path / "run")
    assert outcome.failed == 48
    assert all("expected a label" in one["reason"] for one in lasting(tmp_path / "run"))


def test_corruptions_are_further_images(photos, tmp_path):
    corruptions = [{"name": "gaussian_noise", "severity": 3}]
    plan = plan_of(photos, methods=["gradient"], settings={}, data={"corruptions": corruptions})
    run(plan, tmp_path / "run")
    rows = lasting(tmp_path / "run")
    assert {(one["corruption"], one["severity"]) for one in rows} == {
        ("", 0),
        ("gaussian_noise", 3),
    }
    contents = {(one["image"], one["corruption"]): one["content"] for one in rows}
    assert len(set(contents.values())) == 8
    run(plan, tmp_path / "again")
    assert lasting(tmp_path / "again") == rows


def test_pictures_are_kept_of_the_first_images_once_per_map(photos, tmp_path):
    run(plan_of(photos, pictures=2), tmp_path / "run")
    rows = lasting(tmp_path / "run")
    kept = [one for one in rows if one["picture"]]
    assert len({one["image"] for one in kept}) == 2
    assert len(kept) == 2 * len(METHODS)
    (tmp_path / "one.webp").write_bytes(kept[0]["picture"])
    with Image.open(tmp_path / "one.webp") as opened:
        assert opened.size == (320, 160)


def test_a_second_run_in_the_same_folder_is_refused(photos, tmp_path):
    with folder_lock(tmp_path / "run"), pytest.raises(UnilensError, match="another process"):
        run(plan_of(photos), tmp_path / "run")


def test_a_model_that_is_not_to_be_had_ends_the_run_and_keeps_what_was_done(photos, tmp_path):
    plan = plan_of(photos, models=["py:tiny_models:tiny", "py:tiny_models:missing"])
    with pytest.raises(UnilensError, match="no function 'missing'"):
        run(plan, tmp_path / "run")
    assert len(lasting(tmp_path / "run")) == 48


def test_nothing_is_made_where_the_data_are_not_to_be_had(tmp_path):
    with pytest.raises(UnilensError):
        run(plan_of(tmp_path / "nowhere"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_are_written_as_they_come(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "WRITE_EVERY", 0.0)
    seen = []

    def tell(done, planned, failed, what):
        seen.append((done, planned, len(list((tmp_path / "run" / "rows").iterdir()))))

    run(plan_of(photos), tmp_path / "run", on_progress=tell)
    assert seen[0] == (0, 48, 0)
    assert [done for done, _, _ in seen] == list(range(0, 49, 3))
    assert [files for _, _, files in seen] == list(range(17))


def test_an_interrupt_keeps_what_was_done(photos, tmp_path):
    def tell(done, planned, failed, what):
        if done >= 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan_of(photos), tmp_path / "run", on_progress=tell)
    assert len(lasting(tmp_path / "run")) == 15
    assert run(plan_of(photos), tmp_path / "run").before == 15


def test_the_log_of_others_is_left_alone(photos, tmp_path):
    logger = logging.getLogger("unilens")
    before = (logger.level, list(logger.handlers))
    run(plan_of(photos), tmp_path / "run")
    assert (logger.level, list(logger.handlers)) == before


def test_an_evaluator_is_made_once_per_model(photos, tmp_path, monkeypatch):
    made = []
    prepare = Evaluator.__init__

    def noting(self, model, **settings):
        made.append(model)
        prepare(self, model, **settings)

    monkeypatch.setattr(Evaluator, "__init__", noting)
    run(plan_of(photos), tmp_path / "run")
    assert len(made) == 1


def test_a_file_name_that_is_no_utf8_is_spelled_out(photos, tmp_path):
    (photos / "2.png").rename(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.png"))
    (photos / "3.png").write_bytes(b"")
    (photos / "3.png").rename(os.fsdecode(os.fsencode(photos) + b"/\xff.png"))
    outcome = run(plan_of(photos), tmp_path / "run")
    rows = lasting(tmp_path / "run")
    assert {one["image"] for one in rows} == {"0.png", "1.png", "caf\\xe9.png", "\\xff.png"}
    assert {one["image"] for one in rows if one["status"] == "failed"} == {"\\xff.png"}
    assert outcome.failed == 12
    assert run(plan_of(photos), tmp_path / "run").written == 0


def test_a_run_that_has_grown_is_the_run_made_at_once(photos, tmp_path):
    run(plan_of(photos, metrics=METRICS[:1]), tmp_path / "run")
    run(plan_of(photos), tmp_path / "run")
    run(plan_of(photos), tmp_path / "whole")
    assert Store(tmp_path / "run").digest() == Store(tmp_path / "whole").digest()


def test_a_model_whose_function_raises_is_named(photos, tmp_path):
    (tmp_path / "tiny_models.py").write_text(MODEL + "\ndef bad():\n    raise OSError('boom')\n")
    plan = plan_of(photos, models=["py:tiny_models:bad"])
    with pytest.raises(UnilensError, match=r"could not load the model py:tiny_models:bad: .*boom"):
        run(plan, tmp_path / "run")


def test_images_that_are_gone_are_said(photos, tmp_path, caplog):
    run(plan_of(photos), tmp_path / "run")
    (photos / "1.png").unlink()
    run(plan_of(photos), tmp_path / "run")
    assert "1 images of this run are not in the data" in caplog.text
    assert len(lasting(tmp_path / "run")) == 48

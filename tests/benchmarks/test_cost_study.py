"""The cost study: what it measures, its fits and its projections."""

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy
import pytest
import torch
from scipy import stats

from cost_study import measure as measure_module
from cost_study.config import BOTH, YARDSTICKS, Centre, CostConfig, UnitKey, read_config
from cost_study.driver import DriverCost, measure_driver
from cost_study.fits import line, power_law
from cost_study.measure import measure
from cost_study.memory import watch
from cost_study.projection import Limits, Workload, bottlenecks, bytes_per_row, project
from cost_study.scaling import Study
from cost_study.store import FAILED, INAPPLICABLE, OK, CostStore, key_of
from unilens._engine.evaluator import PassCount
from unilens.attribution import Attribution
from unilens.benchmark.plan import make_plan, presets, read_plan
from unilens.benchmark.runner import WRITE_AT, WRITE_EVERY
from unilens.benchmark.store import Store
from unilens.errors import UnilensError
from unilens.explainer import Method
from unilens.methods import methods
from unilens.metrics import metrics
from unilens.registry import Card

ROOT = Path(__file__).parents[2]
MEBIBYTE = 2**20
MODEL = """
import torch
from torch import nn
from unilens.models import PixelClassifier, Preprocessing

class Picky(nn.Module):
    def forward(self, x):
        assert x.shape[-1] <= 24, "expected at most 24 pixels"
        return x

def network(*first):
    torch.manual_seed(0)
    parts = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)
    return PixelClassifier(
        nn.Sequential(*first, *parts), Preprocessing((16, 16), 16, (0.5,) * 3, (0.5,) * 3)
    )

def tiny():
    return network()

def picky():
    return network(Picky())
"""
TINY, PICKY = "py:costly_models:tiny", "py:costly_models:picky"


@pytest.fixture
def models(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("models")
    (folder / "costly_models.py").write_text(MODEL)
    monkeypatch.syspath_prepend(folder)


def config(**changed):
    return CostConfig(
        **{
            "models": [TINY],
            "methods": ["ig", "gradient"],
            "resolutions": [12, 16, 24],
            "n_steps": [2, 3, 4],
            "batches": [1, 2, 3],
            "centre": {"resolution": 16, "n_steps": 2, "batch": 1},
            "repeats": 1,
            "seconds": 0,
        }
        | changed
    )


class Counting(Method):
    """Counts its calls, and does what it is told to."""

    calls = 0
    fails = False
    megabytes = 0
    interrupts_at = math.inf

    @property
    def passes(self):
        return PassCount(1, 0)

    def _explain(self, case):
        Counting.calls += 1
        if Counting.calls >= Counting.interrupts_at:
            raise KeyboardInterrupt
        if Counting.fails:
            raise ZeroDivisionError("nothing to divide by")
        held = torch.ones(Counting.megabytes * MEBIBYTE // 4)
        return Attribution(
            values=torch.zeros_like(case.inputs) + held[:0].sum(),
            target=case.target,
            outputs=case.outputs,
            score=torch.zeros(len(case.inputs)),
        )


@pytest.fixture
def counting(monkeypatch):
    for name, value in (("calls", 0), ("fails", False), ("megabytes", 0)):
        monkeypatch.setattr(Counting, name, value)
    monkeypatch.setattr(Counting, "interrupts_at", math.inf)
    methods.add(Card("counting", "gradient", "counts", "none"), Counting)
    yield Counting
    del methods._entries["counting"]


# Laws


def test_a_power_law_is_found():
    pixels = [112**2, 160**2, 224**2, 320**2]
    fit = power_law(pixels, [3e-5 * one**1.25 for one in pixels])
    assert fit.a == pytest.approx(3e-5)
    assert (fit.b, fit.low, fit.high) == pytest.approx((1.25, 1.25, 1.25))
    assert fit.r_squared == pytest.approx(1)
    assert fit.worst == pytest.approx(0, abs=1e-9)
    assert (fit.n, fit.first, fit.last) == (4, 112**2, 320**2)
    assert fit.at(640**2) == pytest.approx(3e-5 * (640**2) ** 1.25)


def test_a_line_is_found():
    fit = line([4, 8, 16, 32], [0.5 + 0.25 * one for one in (4, 8, 16, 32)])
    assert (fit.a, fit.b) == pytest.approx((0.5, 0.25))
    assert fit.at(100) == pytest.approx(25.5)


def test_interval_and_explained_variance_are_those_of_the_textbook():
    x, y = numpy.array([1.0, 2, 3, 5]), numpy.array([1.1, 1.9, 3.2, 4.9])
    fit = line(x.tolist(), y.tolist())
    spread = ((x - x.mean()) ** 2).sum()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / spread
    residuals = y - (y.mean() + slope * (x - x.mean()))
    half = stats.t.ppf(0.975, 2) * math.sqrt((residuals**2).sum() / 2 / spread)
    assert (fit.b, fit.low, fit.high) == pytest.approx((slope, slope - half, slope + half))
    assert fit.r_squared == pytest.approx(1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum())
    assert fit.worst == pytest.approx((abs(residuals) / y).max())


def test_what_does_not_grow_has_no_explained_variance():
    fit = line([1, 2, 3], [7.0, 7.0, 7.0])
    assert (fit.b, fit.r_squared) == (0, None)


@pytest.mark.parametrize("fit", [line, power_law])
def test_fewer_than_three_points_are_refused(fit):
    with pytest.raises(UnilensError, match="at least 3 different points"):
        fit([1, 2, 2, 1], [1, 2, 3, 4])


def test_a_power_law_of_nothing_is_refused():
    with pytest.raises(UnilensError, match="above zero"):
        power_law([1, 2, 3], [1, 0, 2])


# What is measured


def test_one_thing_is_varied_at_a_time():
    cost = CostConfig(
        resolutions=(8, 16),
        n_steps=(1, 2),
        batches=(1, 3),
        centre=Centre(resolution=16, n_steps=2, batch=1),
    )
    assert cost.shapes == [(16, 1), (8, 1), (16, 3)]
    assert cost.steps_at(16, 1) == [2, 1]
    assert cost.steps_at(8, 1) == cost.steps_at(16, 3) == [2]


def test_unit_keys_put_single_passes_first():
    planned = config(
        resolutions=[8, 16],
        n_steps=[1, 2],
        batches=[1, 3],
        also=["efficientnet_lite1"],
        methods=["rise", "gradient"],
    )
    bare = [
        (model, name, *at)
        for model, shapes in ((TINY, [(16, 1), (8, 1), (16, 3)]), ("efficientnet_lite1", [(16, 1)]))
        for at in [(resolution, None, batch) for resolution, batch in shapes]
        for name in YARDSTICKS
    ]
    maps = [
        (TINY, method, *at)
        for method, places in {
            "rise": [(16, 2, 1), (16, 1, 1), (8, 2, 1), (16, 2, 3)],
            "gradient": [(16, None, 1), (8, None, 1), (16, None, 3)],
        }.items()
        for at in places
    ]
    found = planned.unit_keys()
    assert sorted(found, key=str) == sorted((UnitKey(*one) for one in bare + maps), key=str)
    for place in found:
        before = found[: found.index(place)]
        assert (
            place.method in YARDSTICKS
            or UnitKey(place.model, BOTH, place.resolution, None, place.batch) in before
        )


def test_the_number_of_steps_reaches_the_method(models, tmp_path):
    measure(config(methods=["ig", "rise", "gradient"]), tmp_path / "run")
    rows = CostStore(tmp_path / "run").rows()
    steps = {(row["method"], row["n_steps"]): row["forward"] for row in rows}
    assert steps["ig", 4] - steps["ig", 2] == 2
    assert steps["rise", 4] - steps["rise", 2] == 2
    assert {row["counted_by"] for row in rows if row["method"] == "rise"} == {"n_masks"}
    assert ("gradient", None) in steps
    assert {row["status"] for row in rows} == {OK}
    assert all(row["slowest"] >= row["seconds"] >= row["fastest"] > 0 for row in rows)


def test_nothing_is_measured_twice(models, tmp_path, counting):
    planned = config(methods=["counting"])
    counting.interrupts_at = 5
    with pytest.raises(KeyboardInterrupt):
        measure(planned, tmp_path)
    kept = CostStore(tmp_path).rows()
    assert 0 < len(kept) < len(planned.unit_keys())
    counting.interrupts_at = math.inf
    rows = measure(planned, tmp_path).rows()
    assert rows[: len(kept)] == kept
    assert sorted(map(key_of, rows), key=str) == sorted(planned.unit_keys(), key=str)
    before = counting.calls
    assert measure(planned, tmp_path).rows() == rows
    assert counting.calls == before


def test_study_can_be_extended_but_not_changed(models, tmp_path):
    measure(config(methods=["gradient"], resolutions=[16], batches=[1]), tmp_path)
    more = config(methods=["gradient"], resolutions=[16, 20], batches=[1])
    assert len(measure(more, tmp_path).rows()) == 10
    for changed in ({"centre": {"resolution": 20}}, {"repeats": 2}, {"threads": 2}):
        with pytest.raises(UnilensError, match=f"{next(iter(changed))}: was"):
            measure(config(methods=["gradient"], **{"batches": [1], **changed}), tmp_path)


def test_errors_are_rows_with_a_reason(models, tmp_path, counting):
    counting.fails = True
    planned = config(methods=["counting", "gradient"])
    rows = measure(planned, tmp_path).rows()
    failed = [row for row in rows if row["status"] == FAILED]
    assert {row["method"] for row in failed} == {"counting"}
    assert len(failed) == 5
    assert {row["reason"] for row in failed} == {"ZeroDivisionError: nothing to divide by"}
    assert measure(planned, tmp_path).rows() == rows
    counting.fails = False
    assert {row["status"] for row in measure(planned, tmp_path, retry_failed=True).rows()} == {OK}


def test_a_model_that_takes_one_resolution_says_so(models, tmp_path):
    planned = config(models=[PICKY], methods=["gradient"], resolutions=[16, 32])
    rows = measure(planned, tmp_path).rows()
    left_out = [row for row in rows if row["status"] == INAPPLICABLE]
    assert [(row["method"], row["resolution"]) for row in left_out] == [
        *((name, 32) for name in YARDSTICKS),
        ("gradient", 32),
    ]
    assert {row["status"] for row in rows} == {OK, INAPPLICABLE}
    assert "at most 24 pixels" in left_out[0]["reason"]


def test_it_has_the_threads_of_a_worker(models, tmp_path, counting, monkeypatch):
    seen = []
    explain = Counting._explain
    monkeypatch.setattr(
        Counting,
        "_explain",
        lambda self, case: seen.append(torch.get_num_threads()) or explain(self, case),
    )
    before = torch.get_num_threads()
    measure(config(methods=["counting"], resolutions=[16], batches=[1], threads=3), tmp_path)
    assert set(seen) == {3}
    assert torch.get_num_threads() == before


def test_repeats(models, tmp_path, monkeypatch, counting):
    monkeypatch.setattr(measure_module, "_MIN_SECONDS", 0.0)
    planned = config(methods=["counting"], resolutions=[16], batches=[1], repeats=3, seconds=60)
    measure(planned, tmp_path)
    assert {row["repeats"] for row in CostStore(tmp_path).rows()} == {3}
    assert counting.calls == 4


needs_linux = pytest.mark.skipif(
    watch(lambda: None, torch.device("cpu")).of is None, reason="the peak cannot be reset here"
)


@needs_linux
@pytest.mark.parametrize("megabytes", [64, 300])
def test_memory_is_what_a_call_takes(megabytes):
    torch.ones(200 * MEBIBYTE).sum()  # what was there before must not count
    found = watch(lambda: torch.ones(megabytes * MEBIBYTE // 4), torch.device("cpu"))
    assert found.above / MEBIBYTE == pytest.approx(megabytes, abs=8)
    nothing = watch(lambda: None, torch.device("cpu"))
    assert nothing.above / MEBIBYTE < 8


@needs_linux
def test_memory_that_was_used_before_counts_again():
    def many_small():
        return [torch.ones(MEBIBYTE // 64) for _ in range(2000)]

    many_small()  # too small to go back to the system by themselves
    assert watch(many_small, torch.device("cpu")).above / MEBIBYTE == pytest.approx(125, abs=15)


@needs_linux
def test_memory_of_a_method_is_in_its_row(models, tmp_path, counting):
    counting.megabytes = 128
    measure(config(methods=["counting", "gradient"], batches=[1]), tmp_path)
    rows = {row["method"]: row for row in CostStore(tmp_path).rows() if row["resolution"] == 16}
    above = rows["counting"]["memory_bytes"] - rows["gradient"]["memory_bytes"]
    assert above / MEBIBYTE == pytest.approx(128, abs=16)


def test_where_memory_cannot_be_measured_it_is_unknown(monkeypatch):
    monkeypatch.setattr("cost_study.memory._reset_peak", lambda: False)
    calls = []
    found = watch(lambda: calls.append(1), torch.device("cpu"))
    assert (*found, calls) == (None, None, None, [1])


def test_config_names_the_wrong_key():
    with pytest.raises(ValueError, match=r"centre\.n_step\n"):
        CostConfig(centre={"n_step": 4})
    with pytest.raises(ValueError, match=r"batches\.0\n"):
        CostConfig(batches=[0])


def test_config_file_has_twelve_methods_and_the_papers_models():
    found = read_config(ROOT / "benchmarks" / "cost_study" / "cost.toml")
    assert len(found.method_specs) == 12
    assert found.also == read_plan(presets()["paper"]).models
    assert CostConfig.model_validate(found.model_dump(mode="json")) == found


# Laws of a study, and what they project to


def made_row(model, method, resolution, n_steps, batch, seconds, memory=1):
    known = {"status": OK, "repeats": 1, "cpu_seconds": seconds, "seconds": 3 * seconds}
    known |= {"fastest": seconds, "slowest": seconds, "before_bytes": 1000, "memory_of": "bytes"}
    key = UnitKey(model, method, resolution, n_steps, batch)
    passes = {"forward": 1, "backward": 1, "load": 1.0, "memory_bytes": memory}
    return key._asdict() | known | passes


def made_study(**changed):
    """A map of IG takes (1 + 0.5 n) P^0.9 seconds a call of one; a bare pass 0.3 there and back."""
    planned = config(also=["efficientnet_lite1"], **changed)
    rows = []
    for resolution, batch in planned.shapes:
        for name, each in zip(YARDSTICKS, (0.1, 0.3, 0.05, 0.15), strict=True):
            rows.append(made_row(TINY, name, resolution, None, batch, each * batch))
        size = (resolution / 16) ** 1.8
        for steps in planned.steps_at(resolution, batch):
            seconds = (1 + 0.5 * steps) * size * (0.25 + 0.75 * batch)
            rows.append(made_row(TINY, "ig", resolution, steps, batch, seconds, 500 + 70 * batch))
        rows.append(made_row(TINY, "gradient", resolution, None, batch, 0.4 * batch))
    for name, each in zip(YARDSTICKS, (0.2, 0.6, 0.2, 0.45), strict=True):
        rows.append(made_row("efficientnet_lite1", name, 16, None, 1, each, 9000))
    return Study(planned, rows)


def test_a_study_finds_the_laws_behind_it():
    found = {
        (one.method, one.what, one.against): one.fit for one in made_study().scalings() if one.fit
    }
    time = "cpu_seconds"
    assert found["ig", time, "resolution"].b == pytest.approx(0.9)
    steps = found["ig", time, "n_steps"]
    assert (steps.a, steps.b) == pytest.approx((1, 0.5))
    batch = found["ig", time, "batch"]
    assert (batch.a, batch.b) == pytest.approx((2 * 0.25, 2 * 0.75))
    memory = found["ig", "memory_bytes", "batch"]
    assert (memory.a, memory.b) == pytest.approx((500, 70))
    assert found["ig", "seconds", "n_steps"].b == pytest.approx(3 * 0.5)
    assert ("gradient", time, "n_steps") not in found


def test_a_law_that_is_refused_says_why():
    refused = made_study(resolutions=[16]).scaling(TINY, "ig", "seconds", "resolution")
    assert refused.fit is None
    assert "at least 3 different points" in refused.refused


def test_costs_in_bare_passes():
    found = made_study()
    assert found.bare_multiple(found.at(TINY, "ig", n_steps=4)) == pytest.approx(3 / 0.3)
    assert found.bare_multiple(found.at(TINY, "gradient", batch=3)) == pytest.approx(1.2 / 0.9)


def test_a_projection_is_arithmetic():
    found = made_study(methods=["ig:n_steps=10", "gradient"])
    found = Study(
        found.config,
        [
            row | {"method": row["method"].replace("ig", "ig:n_steps=10")}
            for row in made_study().rows
        ],
    )
    work = Workload(images=7200, models=(TINY, "efficientnet_lite1"), devices=4, speed_up=2.5)
    made = project(found, work)
    ig, gradient = 1 + 0.5 * 10, 0.4
    assert made.map_hours == pytest.approx(
        {
            (TINY, "ig:n_steps=10"): 2 * ig,
            (TINY, "gradient"): 2 * gradient,
            ("efficientnet_lite1", "ig:n_steps=10"): 6 * ig,
            ("efficientnet_lite1", "gradient"): 6 * gradient,
        }
    )
    assert made.device_hours == pytest.approx(8 * (ig + gradient))
    assert made.hours == pytest.approx(8 * (ig + gradient) / 10)
    assert made.share_of("gradient") == pytest.approx(gradient / (ig + gradient))
    assert made.rows == 7200 * 2 * 2
    assert made.shards == math.ceil(made.hours * 3600 / WRITE_EVERY)
    assert made.worker_bytes == 9000 + 1000
    assert made.disk_bytes is None
    assert made.unknown == []


def test_a_method_without_backward_passes_carries_over_by_forward_passes():
    found = made_study()
    rows = [row | {"backward": int(row["method"] != "gradient")} for row in found.rows]
    made = project(Study(found.config, rows), Workload(images=3600, models=("efficientnet_lite1",)))
    assert made.map_hours["efficientnet_lite1", "gradient"] == pytest.approx(4 * 0.4)
    assert made.map_hours["efficientnet_lite1", "ig"] == pytest.approx(3 * (1 + 0.5 * 50))


def test_the_default_number_of_steps_is_projected():
    made = project(made_study(), Workload(images=3600, models=(TINY,), methods=("ig",)))
    assert made.hours == pytest.approx(1 + 0.5 * 50)


def test_metrics_cost_their_passes_and_the_maps_they_make_anew():
    alone, judged = (
        project(
            made_study(),
            Workload(images=3600, models=(TINY,), methods=("gradient",), metrics=names),
        )
        for names in ((), ("deletion_auc:step=0.25", "noise_spearman"))
    )
    deletion, noise = metrics["deletion_auc"](step=0.25), metrics["noise_spearman"]()
    assert noise.explanations > 0
    assert noise.passes.backward == deletion.passes.backward == 0
    passes = deletion.passes.forward + noise.passes.forward
    assert judged.metric_hours[TINY] == pytest.approx(0.05 * passes + 0.4 * noise.explanations)
    assert judged.hours == pytest.approx(alone.hours + judged.metric_hours[TINY])
    assert judged.rows == 2 * alone.rows


def test_what_was_not_measured_is_not_projected():
    made = project(made_study(), Workload(images=10, models=("efficientnet_lite2",)))
    assert made.unknown == [("efficientnet_lite2", "ig"), ("efficientnet_lite2", "gradient")]
    assert made.hours == 0


def test_a_long_run_writes_full_shards():
    found = project(made_study(), Workload(images=10**6, models=(TINY,), speed_up=1e9))
    assert found.shards == math.ceil(2 * 10**6 / WRITE_AT)


@pytest.mark.parametrize("wrong", [{"images": 0}, {"devices": 0}, {"speed_up": 0.0}])
def test_a_workload_of_nothing_is_refused(wrong):
    with pytest.raises(UnilensError, match=next(iter(wrong))):
        Workload(**wrong)


def test_bytes_per_row_are_those_on_disk(tmp_path):
    store = Store.create(tmp_path, make_plan({"models": [TINY], "methods": ["gradient"]}))
    shared = {"corruption": "", "severity": 0, "model": TINY, "method": "gradient", "status": OK}
    for number in range(2):
        rows = [shared | {"image": f"{number}-{k}", "metric": "m"} for k in range(10)]
        store.append(rows)
    on_disk = sum(path.stat().st_size for path in (tmp_path / "rows").iterdir())
    assert bytes_per_row(store) == pytest.approx(on_disk / 20, rel=0.05)
    made = project(made_study(), Workload(images=100, models=(TINY,)), store)
    assert made.disk_bytes == pytest.approx(200 * bytes_per_row(store))
    picture = numpy.random.default_rng(0).bytes(100_000)
    without = bytes_per_row(store)
    rows = [shared | {"image": f"p-{k}", "metric": "m"} for k in range(10)]
    store.append([rows[0] | {"picture": picture}, *rows[1:]])
    assert bytes_per_row(store) == pytest.approx(without, rel=0.1)


def test_what_breaks_first_is_what_is_needed_most_of():
    work = Workload(images=3600, models=(TINY,), methods=("gradient", "ig"))
    made = project(made_study(), work)
    driver = DriverCost(key_bytes=10, digest_bytes=100, key_seconds=1e-3, shard_seconds=0.5)
    limits = Limits(hours=made.hours / 2, resume_hours=1, driver_bytes=7200, worker_bytes=3000)
    found = bottlenecks(made, work, driver, limits)
    shares = {one.what.partition(":")[2].split()[0]: one.share for one in found if ":" in one.what}
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
    assert shares["metrics"] == pytest.approx(2)
    assert found[0].what.endswith("digest of all rows")
    assert found[0].share == pytest.approx(7200 * 100 / 7200)
    assert found[0].images == pytest.approx(36)
    (resume,) = (one for one in found if one.what.startswith("time to resume"))
    assert resume.need == pytest.approx((7200 * 1e-3 + made.shards * 0.5) / 3600)
    (worker,) = (one for one in found if one.what.startswith("memory of a worker"))
    assert (worker.images, worker.share) == (None, (710 + 1000) / 3000)


def test_what_the_driver_holds_is_measured():
    plan = make_plan({"methods": ["ig", "gradient"]})
    found = measure_driver(plan)
    assert found.digest_bytes > 32
    assert found.key_bytes > 0
    assert found.key_seconds > 0
    assert found.shard_seconds >= 0


def test_script_measures_and_prints_the_tables(models, tmp_path):
    """The package of the models is found through the folder that the script is started in."""
    (tmp_path / "cost.toml").write_text(
        f'models = ["{TINY}"]\nmethods = ["gradient"]\nresolutions = [16, 24]\nbatches = [1]\n'
        "repeats = 1\nseconds = 0\ncentre = { resolution = 16 }\n"
    )
    script = str(ROOT / "benchmarks" / "cost.py")
    command = [sys.executable, script, "run", "--config", "cost.toml"]
    folder = str(Path(find_spec("costly_models").origin).parent)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), folder])}
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("10 measurements")
    for title in ("at the centre", "exponent of the pixels", "hours, maps", "What breaks"):
        assert title in done.stdout
    lines = (tmp_path / "run" / "costs.jsonl").read_text().splitlines()
    assert {json.loads(line)["status"] for line in lines} == {OK}
    again = subprocess.run(
        [*command, "--only-tables"], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert (again.returncode, again.stderr) == (0, "")

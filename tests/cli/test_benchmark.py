"""`unilens benchmark` in a process of its own: interrupted, resumed, and told wrong things."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy
import pytest
from PIL import Image

from unilens.benchmark.rows import MEASURED_TIME, SCHEMA
from unilens.benchmark.store import Store

KILLS = int(os.environ.get("UNILENS_KILLS", "3"))
"""How often a run is killed; more in a long test."""
MAIN = "from unilens.cli import main; main()"
TRUSTED = ("--allow-code", "--no-report")
HASTY = "from unilens.benchmark import runner; runner.WRITE_EVERY = 0.0; " + MAIN
MODEL = """
import torch
from torch import nn
from unilens.models import PixelClassifier, Preprocessing

def tiny():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
    )
    return PixelClassifier(network, Preprocessing((20, 20), 20, (0.5,) * 3, (0.25,) * 3))
"""
PLAN = """
models = ["py:tiny_models:tiny"]
methods = ["uni", "ig:baseline=gaussian_noise", "smoothgrad", "rise:n_masks=40", "gradcam"]
metrics = ["mu_fidelity:subsets=12,cells=4", "deletion_auc", "monotonicity", "noise_top_k"]
settings = { n_steps = 4, n_samples = 5 }

[data]
source = "photos"
corruptions = [{ name = "shot_noise", severity = 2 }]
"""


@pytest.fixture
def here(tmp_path):
    """Return a folder with a model, a plan and photographs, one of which is broken."""
    (tmp_path / "tiny_models.py").write_text(MODEL)
    (tmp_path / "plan.toml").write_text(PLAN)
    (tmp_path / "photos").mkdir()
    drawn = numpy.random.default_rng(0)
    for number in range(12):
        small = drawn.integers(0, 256, (5, 6, 3), dtype=numpy.uint8)
        Image.fromarray(small).resize((40, 30)).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"\\x89PNG")
    return tmp_path


def command(*arguments, hasty=False):
    return [sys.executable, "-c", HASTY if hasty else MAIN, *map(str, arguments)]


def unilens(here, *arguments):
    return subprocess.run(command(*arguments), cwd=here, capture_output=True, text=True)


def lasting(folder):
    """Return all that a run's rows say but for the time they took, as bytes."""
    table = Store(folder).table(SCHEMA.names).drop_columns(MEASURED_TIME)
    return json.dumps(table.to_pylist(), default=bytes.hex).encode()


def kill_at_a_random_moment(here, out, drawn, most, per_shard):
    """Start the run and kill it when some more shards are there, on the way to the next."""
    shards = out / "rows"
    before = len(list(shards.glob("*"))) if shards.exists() else 0
    count = before + drawn.randrange(most)
    run = subprocess.Popen(
        command("benchmark", "plan.toml", *TRUSTED, "--out", out, hasty=True),
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with run:
        while run.poll() is None and (not shards.exists() or len(list(shards.glob("*"))) < count):
            time.sleep(0.002)
        time.sleep(drawn.random() * per_shard)
        run.send_signal(signal.SIGKILL)
    return run.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_has_the_rows_of_one_that_was_not(here):
    began = time.monotonic()
    whole = unilens(here, "benchmark", "plan.toml", *TRUSTED, "--out", "whole")
    assert whole.returncode == 1, whole.stderr  # one photograph is broken
    maps = 13 * 2 * 5
    per_shard = (time.monotonic() - began) / maps
    drawn, out = random.Random(KILLS), here / "run"
    killed = sum(
        kill_at_a_random_moment(here, out, drawn, maps // (KILLS + 1), per_shard)
        for _ in range(KILLS)
    )
    assert killed == KILLS
    assert 0 < len(Store(out).index()) < maps * 4
    last = unilens(here, "benchmark", "plan.toml", *TRUSTED, "--out", "run")
    assert last.returncode == 1, last.stderr
    assert lasting(out) == lasting(here / "whole")
    keys = Store(out).table(["image", "corruption", "method", "metric"]).to_pylist()
    assert len(keys) == len({tuple(key.values()) for key in keys}) == maps * 4
    assert {path.suffix for path in (out / "rows").iterdir()} == {".parquet"}


@pytest.fixture
def run(command, monkeypatch, here):
    """Run the command line beside the model and the photographs."""
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(here)
    monkeypatch.delitem(sys.modules, "tiny_models", raising=False)
    return command


FLAGS = (
    *("--model", "py:tiny_models:tiny", "--methods", "gradient,ig:baseline=grey,n_steps=2"),
    *("--metrics", "deletion_auc", "--metrics", "monotonicity", "--data", "photos"),
)


def test_flags_alone_are_a_plan_and_it_ends_in_a_report(run, here):
    (here / "photos" / "broken.png").unlink()
    code, out, err = run("benchmark", *FLAGS, "--limit", 3, "--seed", 7, "--out", "run")
    assert (code, err) == (0, "")
    assert "12 rows written" in out
    assert f"digest {Store(here / 'run').digest()}" in out
    plan = Store(here / "run").plan
    assert plan.methods == ("gradient", "ig:baseline=grey,n_steps=2")
    assert (plan.seed, plan.data.limit) == (7, 3)
    page = (here / "run" / "report" / "report.html").read_text()
    assert "ig:baseline=grey,n_steps=2" in page
    code, out, err = run("benchmark", *FLAGS, "--limit", 3, "--seed", 7, "--out", "run")
    assert (code, err) == (0, "")
    assert "0 rows written" in out
    assert "12 before" in out


def test_a_preset_runs_without_anything_else_and_flags_change_it(run, here):
    code, out, err = run(
        *("benchmark", "--preset", "smoke", "--dry-run", "--limit", 2, "--seed", 5)
    )
    assert (code, err) == (0, "")
    assert '"seed": 5' in out
    assert "2 images, 70 rows, to unilens-out/smoke" in out
    assert not (here / "unilens-out").exists()


def test_what_failed_is_said_and_ends_with_one(run, here):
    code, out, _ = run("benchmark", *FLAGS, "--out", "run", "--no-report")
    assert code == 1
    assert "4 failed: run/log.txt says why" in out
    assert "broken.png" in (here / "run" / "log.txt").read_text()
    (here / "photos" / "broken.png").write_bytes((here / "photos" / "1.png").read_bytes())
    code, out, _ = run("benchmark", *FLAGS, "--out", "run", "--no-report", "--retry-failed")
    assert (code, "4 rows written" in out) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "expected a plan, --preset or flags"),
        (("missing.toml",), "could not read the plan missing.toml"),
        (("plan.toml", "--preset", "smoke"), "got both"),
        (("--preset", "smok"), "did you mean smoke"),
        (("--preset", "smoke", "--data", "nowhere"), "nowhere"),
        (("--preset", "smoke", "--methods", "igg"), "did you mean ig"),
        (("--preset", "smoke", "--limit", "0"), "data.limit"),
        (("--preset", "smoke", "--limit", "many"), "valid integer"),
        (("--preset", "smoke", "--corruption", "fog"), "NAME:SEVERITY"),
        (("--preset", "smoke", "--corruption", "fgo:1"), "did you mean fog"),
        (("--preset", "smoke", "--set", "n_step=1"), "n_step"),
        (("--preset", "smoke", "--engine", "dask"), "engine.name"),
        (("--preset", "smoke", "--model", "lite0"), "unknown model 'lite0'"),
        (("--preset", "smoke", "--out", "plan.toml/run"), "expected a folder for the run"),
        (("--preset", "smoke", "--out", "photos"), "choose another with --out"),
    ],
)
def test_what_is_wrong_is_one_line(run, here, arguments, words):
    before = sorted(here.rglob("*"))
    code, out, err = run("benchmark", *arguments)
    assert code == 2
    assert out == ""
    assert words in err
    assert len(err.splitlines()) == 1
    assert [path for path in sorted(here.rglob("*")) if path.name != ".lock"] == before


def test_another_plan_in_the_same_folder_is_refused(run, here):
    (here / "photos" / "broken.png").unlink()
    assert run("benchmark", *FLAGS, "--limit", 1, "--out", "run", "--no-report")[0] == 0
    code, _, err = run("benchmark", *FLAGS, "--limit", 1, "--out", "run", "--seed", 1)
    assert code == 2
    assert "seed: was 0, now 1" in err

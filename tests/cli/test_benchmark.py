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
HASTY = "from unilens.benchmark import runner; runner._WRITE_EVERY = 0.0; " + MAIN
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
    wanted = before + drawn.randrange(most)
    run = subprocess.Popen(
        command("benchmark", "plan.toml", "--out", out, "--no-report", hasty=True),
        cwd=here,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with run:
        while run.poll() is None and (not shards.exists() or len(list(shards.glob("*"))) < wanted):
            time.sleep(0.002)
        time.sleep(drawn.random() * per_shard)
        run.send_signal(signal.SIGKILL)
    return run.returncode == -signal.SIGKILL


def test_a_run_that_is_killed_again_and_again_has_the_rows_of_one_that_was_not(here):
    began = time.monotonic()
    whole = unilens(here, "benchmark", "plan.toml", "--out", "whole", "--no-report")
    assert whole.returncode == 1, whole.stderr  # one photograph is broken
    maps = 13 * 2 * 5
    per_shard = (time.monotonic() - began) / maps
    drawn, out = random.Random(KILLS), here / "run"
    killed = sum(
        kill_at_a_random_moment(here, out, drawn, maps // (KILLS + 1), per_shard)
        for _ in range(KILLS)
    )
    assert killed == KILLS
    assert 0 < len(Store(out).done()) < maps * 4
    last = unilens(here, "benchmark", "plan.toml", "--out", "run", "--no-report")
    assert last.returncode == 1, last.stderr
    assert lasting(out) == lasting(here / "whole")
    keys = Store(out).table(["image", "corruption", "method", "metric"]).to_pylist()
    assert len(keys) == len({tuple(key.values()) for key in keys}) == maps * 4
    assert {path.suffix for path in (out / "rows").iterdir()} == {".parquet"}

"""In several processes come the rows that come in one, and none outlives its run."""

import functools
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from unilens.benchmark import runner
from unilens.benchmark.store import LOG
from unilens.errors import UnilensError

from .watched_runs import FIRST, IMAGES, lasting, notes, plan_of, write_model

run = functools.partial(runner.run, allow_code=True)
COMMAND = [sys.executable, "-c", "from unilens.cli import main; main()", "benchmark"]


def sorted_rows(folder):
    return sorted(lasting(folder), key=lambda row: (row["image"], row["method"], row["metric"]))


def command(module):
    said = ["--model", f"py:{module}:tiny", "--data", "photos", "--set", "n_steps=3"]
    said += ["--methods", "uni,ig,gradient", "--metrics", "deletion_auc"]
    return [*COMMAND, *said, "--workers", "2", "--out", "run", "--no-report"]


def ended(pids):
    """Return whether none of the processes runs after ten seconds."""
    alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], 10)
    return not alive[1]


def started(place, count):
    """Return the processes of the workers as soon as so many have begun."""
    until = time.monotonic() + 120
    while len(pids := {int(pid) for pid, *_ in notes(place, "begun")}) < count:
        assert time.monotonic() < until
        time.sleep(0.05)
    return pids


@pytest.mark.slow
def test_two_processes_give_the_rows_of_one(place):
    module = write_model(place, seconds=0.2)
    outcome = run(plan_of(module, workers=2), place / "two")
    assert (outcome.written, outcome.failed) == (IMAGES * 3 * 2, 0)
    loaded = {int(pid) for pid, _ in notes(place, "loaded")}
    assert len(loaded) == 2
    assert os.getpid() not in loaded
    assert ended(loaded)
    run(plan_of(module), place / "one")
    assert sorted_rows(place / "two") == sorted_rows(place / "one")
    assert run(plan_of(module, workers=2), place / "one").written == 0


@pytest.mark.slow
def test_lost_process_ends_the_run_and_the_same_command_goes_on(place):
    module = write_model(place, seconds=0.2, deadly=FIRST + 4)
    with pytest.raises(UnilensError, match=r"one of 2 worker processes ended .* fewer workers"):
        run(plan_of(module, workers=2), place / "run")
    assert ended({int(pid) for pid, _ in notes(place, "loaded")})
    kept = len(lasting(place / "run"))
    assert kept < IMAGES * 3 * 2
    assert run(plan_of(module), place / "run").before == kept
    assert len(lasting(place / "run")) == IMAGES * 3 * 2


@pytest.mark.slow
def test_model_that_cannot_be_loaded_and_warnings_are_told_as_in_one_process(place):
    module = write_model(place)
    (place / "photos" / "1.png").write_bytes(b"\x89PNG no more")
    with pytest.raises(UnilensError, match="has no function 'missing'"):
        run(plan_of(module, models=("tiny", "missing"), workers=1), place / "run")
    assert "WARNING 1.png" in (place / "run" / LOG).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(place, sent):
    module = write_model(place, seconds=1)
    with subprocess.Popen(command(module), stdout=-3, stderr=subprocess.PIPE, text=True) as run_:
        pids = started(place, 2)
        run_.send_signal(sent)
        said = run_.stderr.read()
        assert run_.wait(60) == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    assert ended(pids)
    assert "Traceback" not in said

"""On a Ray cluster come the rows that come in one process, whatever is lost on the way."""

import contextlib
import functools
import importlib.util
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from unilens.benchmark import cluster as engine
from unilens.benchmark import runner
from unilens.benchmark.plan import EngineConfig
from unilens.benchmark.store import LOG
from unilens.errors import UnilensError, UnknownNameError

from .watched_runs import FIRST, IMAGES, lasting, notes, plan_of, write_model

if not importlib.util.find_spec("ray"):
    pytest.skip("needs ray", allow_module_level=True)
ray = engine._ray(EngineConfig(name="ray", address="auto"))
run = functools.partial(runner.run, allow_code=True)
pytestmark = [
    # Ray leaves the sockets, logs and processes of its own servers to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess:ResourceWarning"),
]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


class Killing:
    """Kills a worker, and later a node, each with a unit in hand."""

    def __init__(self, place, cluster, node):
        self.place, self.cluster, self.node = place, cluster, node
        self.lost = []

    def __call__(self, done, planned, failed, what):
        if done and not self.lost:
            self.lost.append(self._next_begun(lambda one: True))
            os.kill(int(self.lost[0][0]), signal.SIGKILL)
        elif done and len(self.lost) == 1:
            self.lost.append(self._next_begun(lambda one: one[2] == self.node.node_id))
            self.cluster.remove_node(self.node, allow_graceful=False)

    def _next_begun(self, condition):
        """Wait until a worker begins a unit, and return what it noted."""
        before = len(notes(self.place, "begun"))
        until = time.monotonic() + 40
        while time.monotonic() < until:
            for one in notes(self.place, "begun")[before:]:
                if condition(one):
                    return one
            time.sleep(0.02)
        raise TimeoutError("no worker began anything")


@pytest.mark.slow
def test_a_worker_and_a_node_are_lost_and_no_row_is(place, cluster):
    module = write_model(place, seconds=1.5)
    models = ("tiny", "other")
    run(plan_of(module, models=models), place / "local")
    plan = plan_of(module, models=models, name="ray", address=cluster.address)
    killing = Killing(place, cluster, cluster.add_node(num_cpus=1))
    outcome = run(plan, place / "ray", on_progress=killing)
    rows = lasting(place / "local")
    assert len(rows) == len(models) * IMAGES * 3 * 2
    assert lasting(place / "ray") == rows
    assert (outcome.written, outcome.failed) == (len(rows), 0)
    begun = notes(place, "begun")
    assert len({node for _, _, node in begun}) == 2
    assert len(begun) >= len(models) * IMAGES + 2
    for pid, width, node in killing.lost:
        assert not psutil.pid_exists(int(pid))
        after = begun[begun.index((pid, width, node)) + 1 :]
        assert pid not in [one[0] for one in after]
        assert width in [one[1] for one in after]
    loaded = notes(place, "loaded")
    assert len(loaded) == len(set(loaded))
    assert len({pid for pid, _ in loaded}) >= 3  # the two that were lost, and who went on


@pytest.mark.slow
def test_a_unit_that_kills_its_worker_every_time_fails_and_harms_no_other(
    place, cluster, monkeypatch, capfd
):
    monkeypatch.setattr(engine, "_RETRIES", 1)
    module = write_model(place, deadly=FIRST + 1)
    run(plan_of(module), place / "local")
    outcome = run(plan_of(module, name="ray", address=cluster.address), place / "ray")
    assert capfd.readouterr() == ("", "")
    rows = lasting(place / "ray")
    bad = [one for one in rows if one["image"] == "1.png"]
    assert len(bad) == outcome.failed == 6
    assert {one["status"] for one in bad} == {"failed"}
    assert all("its worker was lost 2 times" in one["reason"] for one in bad)
    assert [one for one in rows if one["image"] != "1.png"] == [
        one for one in lasting(place / "local") if one["image"] != "1.png"
    ]
    assert [one[1] for one in notes(place, "begun")].count(str(FIRST + 1)) == 2
    assert "1.png" in (place / "ray" / LOG).read_text()


@pytest.mark.slow
def test_what_workers_log_comes_to_the_log_of_the_run(place, cluster):
    module = write_model(place)
    (place / "photos" / "1.png").write_bytes(b"\x89PNG no more")
    outcome = run(plan_of(module, name="ray", address=cluster.address), place / "ray")
    assert outcome.failed == 6
    assert "WARNING 1.png" in (place / "ray" / LOG).read_text()


@pytest.mark.slow
def test_a_model_that_is_not_to_be_had_says_so_as_in_one_process(place, cluster):
    module = write_model(place)
    plan = plan_of(module, models=("tiny", "missing"), name="ray", address=cluster.address)
    with pytest.raises(UnilensError, match="has no function 'missing'"):
        run(plan, place / "ray")
    assert len(lasting(place / "ray")) == IMAGES * 3 * 2


@pytest.mark.parametrize(
    "settings", [{"workers": 2}, {"cpus": 2}, {"gpus": 0.5}], ids=lambda one: next(iter(one))
)
def test_more_than_there_is_is_refused(place, cluster, settings):
    plan = plan_of(write_model(place), name="ray", address=cluster.address, **settings)
    with pytest.raises(UnilensError, match="with room for"):
        run(plan, place / "ray")


def test_cores_of_two_nodes_are_not_room_for_one_worker(monkeypatch):
    nodes = [{"Alive": alive, "Resources": {"CPU": 3.0, "GPU": 1.0}} for alive in (1, 1, 0)]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": True, "Resources": {}}])
    for settings, room in (({"cpus": 2}, 2), ({"cpus": 4}, 0), ({"gpus": 0.5}, 4), ({}, 6)):
        assert engine._room(ray, plan_of("m", name="ray", **settings).engine) == room


def test_where_nothing_listens_is_said_at_once(place):
    plan = plan_of(write_model(place), name="ray", address="127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(UnilensError, match=r"could not reach .* \(127.0.0.1:9\)"):
        run(plan, place / "ray")
    assert time.monotonic() - began < 10


def test_without_ray_the_remedy_is_said(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UnilensError, match=r"pip install 'unilens\[ray\]'"):
        run(plan_of(write_model(place), name="ray"), place / "ray")


def test_nothing_is_started_where_nothing_is_to_be_done(place, monkeypatch):
    module = write_model(place)
    run(plan_of(module), place / "run")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run(plan_of(module, name="ray"), place / "run").written == 0


def addresses_until_the_end(process, seconds):
    """Return the addresses at which a process and its children listened."""
    found, until = set(), time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(process.pid)
            for one in (parent, *parent.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found |= {c.laddr.ip for c in one.net_connections() if c.status == "LISTEN"}
        time.sleep(0.1)
    return found


@pytest.mark.slow
def test_the_command_starts_a_cluster_of_its_own_and_is_quiet(place):
    module = write_model(place)
    call = [sys.executable, "-c", "from unilens.cli import main; main()", "benchmark"]
    call += ["--model", f"py:{module}:tiny", "--data", "photos", "--set", "n_steps=3"]
    call += ["--methods", "uni,ig,gradient", "--engine", "ray", "--workers", "1"]
    call += [
        "--metrics",
        "deletion_auc,mu_fidelity:subsets=8,cells=4",
        "--out",
        "ray",
        "--no-report",
    ]
    with subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        listening = addresses_until_the_end(process, 120)
        out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert len(out.splitlines()) == 2
    assert listening
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
    workers = {int(pid) for pid, _ in notes(place, "loaded")}
    assert len(workers) == 1
    assert not any(psutil.pid_exists(pid) for pid in workers)
    run(plan_of(module), place / "local")
    assert lasting(place / "ray") == lasting(place / "local")


@pytest.mark.parametrize(
    ("given", "seen", "device"),
    [([], "2,5", "cuda"), ([5], "2,5", "cuda:1"), ([1], None, "cuda:1")],
)
def test_a_unit_runs_on_the_gpu_that_ray_gives(monkeypatch, given, seen, device):
    monkeypatch.setattr(ray, "get_gpu_ids", lambda: given)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert engine._device("cuda") == device
    assert engine._device("cpu") == "cpu"


def test_an_error_of_an_unknown_name_survives_the_way_from_a_worker():
    import pickle

    error = UnknownNameError("model", "resnte", ["resnet"], "Or another.")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)

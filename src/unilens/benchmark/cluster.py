"""Units on a Ray cluster: Ray schedules them, and repeats those of a lost worker."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import UnilensError, first_line
from .plan import EngineConfig, Plan
from .rows import Row
from .work import RowBatches, Unit, Workbench
from .worker import LogLine, WorkerSetup, logged, unit_rows

_log = logging.getLogger(__name__)
_RETRIES = 5
"""Repetitions of a unit whose worker was lost: one that always kills its worker must end."""
_TIMEOUT = 30.0
"""Seconds without a result after which the cluster is checked for room for a worker."""
_UNITS_PER_WORKER = 2
"""Units submitted per worker: one that runs, and one that waits."""
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns where it is not set
    "RAY_task_oom_retries": str(_RETRIES),  # without it, a unit too large for the memory never ends
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it prints every lost worker, log_to_driver=False or not
}
"""Environment variables of Ray's import, unless the user has set them."""
_PACKAGES = Path(__file__).parents[2]
"""Current folder while Ray starts, which has its workers search that first for modules."""
_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Likewise of a cluster started here: its processes listen on 127.0.0.1 alone, on Linux too."""
_STORE_BYTES = 256 * 2**20
"""Object store of a cluster started here; Ray's own choice is a third of the memory, more than
containers often allow."""


def on_ray(plan: Plan, units: Iterable[Unit]) -> RowBatches:
    """Compute units on a Ray cluster: an existing one, or one started on this machine.

    A unit is a Ray task; a worker process loads a model once. (Actors would use up their retries
    while Ray has not noticed yet that their node is gone.)

    Raises:
        UnilensError: Ray is not installed, the cluster cannot be reached or has no room for the
            workers, or a worker could not load a model.
    """
    units = iter(units)
    first = next(units, None)
    if first is None:
        return
    ray = _ray(plan.engine)
    started_here = not ray.is_initialized()
    if started_here:
        _start(ray, plan.engine)
    try:
        yield from _results(ray, plan, itertools.chain([first], units))
    finally:
        if started_here:
            ray.shutdown()


def _ray(engine: EngineConfig) -> Any:
    more = _ON_LOOPBACK if engine.address is None else {}
    for name, value in (_RAY_ENVIRONMENT | more).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UnilensError(
            "the engine ray needs Ray; run: pip install 'unilens[ray]', or leave --engine out"
        ) from None
    return ray


def _start(ray: Any, engine: EngineConfig) -> None:
    arguments: dict[str, Any] = {"address": engine.address}
    if engine.address is None:
        arguments = {
            "address": "local",
            "num_cpus": _cores(engine),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    try:
        _reach(engine.address)
        with contextlib.chdir(_PACKAGES):
            ray.init(**arguments, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UnilensError(
            f"could not reach or start a Ray cluster ({engine.address or 'this machine'}): "
            f"{first_line(error)}; check engine.address"
        ) from error
    host = ray.util.get_node_ip_address()
    if engine.address is None and not host.startswith("127."):
        _log.warning("Ray was imported before, and listens on %s too", host)


def _reach(address: str | None) -> None:
    """Raise where nothing listens at an address: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():  # "auto" and None are resolved by Ray
        socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()


def _cores(engine: EngineConfig) -> int | None:
    """Return the cores of a cluster on this machine; None for all of them."""
    if engine.workers is None:
        return None
    return min(engine.cpus * engine.workers, os.cpu_count() or 1)


def _results(ray: Any, plan: Plan, units: Iterable[Unit]) -> RowBatches:
    capacity = _capacity(plan.engine, _room(ray, plan.engine))
    task = ray.remote(_unit_rows).options(**_options(plan.engine))
    setup = WorkerSetup.of(plan)
    waiting: dict[Any, Unit] = {}
    for unit in units:
        waiting[task.remote(setup, unit)] = unit
        if len(waiting) >= capacity:
            yield _next(ray, plan, waiting)
    while waiting:
        yield _next(ray, plan, waiting)


def _options(engine: EngineConfig) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": engine.cpus,
        "num_gpus": engine.gpus,
        "max_retries": _RETRIES,
    }
    if engine.gpus:  # see `_device`
        options["runtime_env"] = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    return options


def _capacity(engine: EngineConfig, room: int) -> int:
    """Return the number of units submitted at once: `workers`, or all that fit and more."""
    _require_room(engine, engine.workers or 1, room)
    if engine.workers and engine.workers < room:
        return engine.workers
    return _UNITS_PER_WORKER * room


def _room(ray: Any, engine: EngineConfig) -> int:
    """Return how many workers fit on the nodes, whatever else they run."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = [("CPU", engine.cpus), ("GPU", engine.gpus)]
    return sum(
        min(int(node.get(name, 0) / amount) for name, amount in needs if amount) for node in nodes
    )


def _require_room(engine: EngineConfig, count: int, room: int) -> None:
    if room < count:
        raise UnilensError(
            f"expected a Ray cluster with room for {count} workers (each: CPU {engine.cpus}, GPU "
            f"{engine.gpus:g}), got room for {room}; ask for less in engine.workers, engine.cpus "
            "or engine.gpus"
        )


def _next(ray: Any, plan: Plan, waiting: dict[Any, Unit]) -> list[Row]:
    """Return the rows of the unit that finishes first."""
    while not (done := ray.wait(list(waiting), num_returns=1, timeout=_TIMEOUT)[0]):
        _require_room(plan.engine, 1, _room(ray, plan.engine))
    unit = waiting.pop(done[0])
    known = ray.exceptions
    try:
        rows, log = ray.get(done[0])
    except known.RayTaskError as error:
        raise (error.cause or error) from None
    except (known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError) as error:
        _log.error("%s, %s: %s", unit.item.name, unit.model, error)
        reason = f"{type(error).__name__}: its worker was lost {_RETRIES + 1} times"
        return Workbench(plan).failed(unit, reason)
    except known.RayError as error:
        raise UnilensError(f"the Ray cluster stopped: {first_line(error)}") from error
    return logged(rows, log)


def _unit_rows(setup: WorkerSetup, unit: Unit) -> tuple[list[Row], list[LogLine]]:
    """Return the rows of a unit and its log lines; runs in a worker."""
    return unit_rows(setup, unit, _device(json.loads(setup.plan)["device"]))


def _device(device: str) -> str:
    """Return the GPU that Ray has assigned to this unit, among those visible to the process.

    By default Ray hides the other GPUs from CUDA and ends the process after each unit, and the
    model with it. Ray is configured not to hide them; the process chooses its GPU here.
    """
    import ray

    assigned = [str(number) for number in ray.get_gpu_ids()]
    if device != "cuda" or not assigned:
        return device
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{visible.split(',').index(assigned[0]) if visible else assigned[0]}"

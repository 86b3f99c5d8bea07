"""Units of work on a Ray cluster: Ray schedules them, and runs again what a lost worker had."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import UnilensError, first_line
from .plan import Engine, Plan, make_plan
from .rows import Row
from .work import Rows, Unit, Workbench

_log = logging.getLogger(__name__)
_RETRIES = 5
"""How often a unit is begun again after its worker or node was lost: one that kills its worker each
time must end."""
_PATIENCE = 30.0
"""Seconds without a result after which it is asked whether there is still room for a worker."""
_QUEUED = 2
"""Units in hand per worker: one that is being done, and one that waits for it."""
_SURROUNDINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray warns where it is not set
    "RAY_task_oom_retries": str(_RETRIES),  # without it, a unit too large for the memory never ends
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # it prints every lost worker, log_to_driver=False or not
}
"""What Ray reads when it is imported, unless the user has set it."""
_STORE_BYTES = 256 * 2**20
"""For results on the way, where the cluster is started here; Ray's own choice is a third of the
memory, which a container often does not share out."""

Told = tuple[int, str]
"""A level and a line of a worker's log."""


def on_ray(plan: Plan, units: Iterable[Unit]) -> Rows:
    """Do the units on a Ray cluster: an existing one, or one started on this machine.

    A unit is a task of Ray, and a worker a process that Ray keeps for them: it loads a model once.
    (Actors would be given up with their node: until Ray sees that it is gone, which takes it many
    seconds, it sends them the same unit again and again, and the retries are used up.)

    Raises:
        UnilensError: Ray is not installed, the cluster is not to be reached or has no room for the
            workers, or a worker could not load a model.
    """
    units = iter(units)
    first = next(units, None)
    if first is None:
        return
    ray = _ray()
    began = not ray.is_initialized()
    if began:
        _begin(ray, plan.engine)
    try:
        yield from _results(ray, plan, itertools.chain([first], units))
    finally:
        if began:
            ray.shutdown()


def _ray() -> Any:
    for name, value in _SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ModuleNotFoundError:
        raise UnilensError(
            "the engine ray needs Ray; run: pip install 'unilens[ray]', or leave --engine out"
        ) from None
    return ray


def _begin(ray: Any, engine: Engine) -> None:
    wanted: dict[str, Any] = {"address": engine.address}
    if engine.address is None:
        wanted = {
            "address": "local",
            "num_cpus": _cores(engine),
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        }
    try:
        _reach(engine.address)
        ray.init(**wanted, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UnilensError(
            f"could not reach or start a Ray cluster ({engine.address or 'this machine'}): "
            f"{first_line(error)}; check engine.address"
        ) from error


def _reach(address: str | None) -> None:
    """Raise where nothing listens: Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if port.isdigit():  # not "auto" or nothing, where Ray knows the place
        socket.create_connection((host, int(port)), timeout=_PATIENCE).close()


def _cores(engine: Engine) -> int | None:
    """Return how many cores a cluster of this machine has; None for all of them."""
    if engine.workers is None:
        return None
    return min(engine.cpus * engine.workers, os.cpu_count() or 1)


def _results(ray: Any, plan: Plan, units: Iterable[Unit]) -> Rows:
    at_once = _at_once(plan.engine, _room(ray, plan.engine))
    task = ray.remote(_unit_rows).options(**_options(plan.engine))
    said = plan.model_dump_json(), str(Path.cwd()), tuple(sys.path)
    waiting: dict[Any, Unit] = {}
    for unit in units:
        waiting[task.remote(said, unit)] = unit
        if len(waiting) >= at_once:
            yield _next(ray, plan, waiting)
    while waiting:
        yield _next(ray, plan, waiting)


def _options(engine: Engine) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_cpus": engine.cpus,
        "num_gpus": engine.gpus,
        "max_retries": _RETRIES,
    }
    if engine.gpus:  # see `_device`
        options["runtime_env"] = {"env_vars": {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1"}}
    return options


def _at_once(engine: Engine, room: int) -> int:
    """Return how many units are in hand: no more than are asked for, and else some that wait."""
    _require_room(engine, engine.workers or 1, room)
    if engine.workers and engine.workers < room:
        return engine.workers
    return _QUEUED * room


def _room(ray: Any, engine: Engine) -> int:
    """Return for how many workers the nodes have room, whatever else they are doing."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = [("CPU", engine.cpus), ("GPU", engine.gpus)]
    return sum(min(int(node.get(name, 0) / each) for name, each in asked if each) for node in nodes)


def _require_room(engine: Engine, count: int, room: int) -> None:
    if room < count:
        raise UnilensError(
            f"expected a Ray cluster with room for {count} workers (each: CPU {engine.cpus}, GPU "
            f"{engine.gpus:g}), got room for {room}; ask for less in engine.workers, engine.cpus "
            "or engine.gpus"
        )


def _next(ray: Any, plan: Plan, waiting: dict[Any, Unit]) -> list[Row]:
    """Return the rows of whichever unit is done first."""
    while not (done := ray.wait(list(waiting), num_returns=1, timeout=_PATIENCE)[0]):
        _require_room(plan.engine, 1, _room(ray, plan.engine))
    unit = waiting.pop(done[0])
    known = ray.exceptions
    try:
        rows, told = ray.get(done[0])
    except known.RayTaskError as error:
        raise (error.cause or error) from None
    except (known.WorkerCrashedError, known.NodeDiedError, known.OutOfMemoryError) as error:
        _log.error("%s, %s: %s", unit.item.name, unit.model, error)
        reason = f"{type(error).__name__}: its worker was lost {_RETRIES + 1} times"
        return Workbench(plan).failed(unit, reason)
    except known.RayError as error:
        raise UnilensError(f"the Ray cluster could not go on: {first_line(error)}") from error
    for level, line in told:
        _log.log(level, line)
    return list(rows)


Said = tuple[str, str, tuple[str, ...]]
"""The plan as JSON, where relative paths begin, and where modules are looked for."""


def _unit_rows(said: Said, unit: Unit) -> tuple[list[Row], list[Told]]:
    """Return the rows of a unit and what was logged on the way; runs in a worker."""
    with _Listening() as heard:
        bench = _workbench(said, _device(json.loads(said[0])["device"]))
        rows = [row for some in bench.rows(unit) for row in some]
    return rows, heard.lines


@functools.lru_cache(maxsize=1)
def _workbench(said: Said, device: str) -> Workbench:
    """Make this process a worker like the one that sends the units."""
    text, folder, path = said
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(folder)
    sys.path += [one for one in path if one not in sys.path]
    plan = make_plan(json.loads(text)).model_copy(update={"device": device})
    torch.set_num_threads(plan.engine.cpus)
    return Workbench(plan)


def _device(device: str) -> str:
    """Return the GPU that Ray has set aside for this unit, of those that the process sees.

    Ray would hide the others from CUDA, which asks once what it sees: a process that had one GPU
    for one unit and another for the next would stay on the first. So Ray is told not to (by
    default, it ends the process after each unit instead, and the model with it).
    """
    import ray

    given = [str(one) for one in ray.get_gpu_ids()]
    if device != "cuda" or not given:
        return device
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return f"cuda:{seen.split(',').index(given[0]) if seen else given[0]}"


class _Listening(logging.Handler):
    """Hears what unilens logs in a worker, so that it comes to the run's own log."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[Told] = []
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append((record.levelno, self.format(record)))

    def __enter__(self) -> _Listening:
        logger = logging.getLogger("unilens")
        logger.addHandler(self)
        logger.setLevel(logging.INFO)
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger("unilens").removeHandler(self)

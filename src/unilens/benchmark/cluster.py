"""Units of work on a Ray cluster: Ray schedules them, and runs again what a lost worker had."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ..errors import UnilensError
from ..passes import first_line
from .engines import Rows
from .plan import Plan, make_plan
from .rows import Row
from .work import Unit, Workbench

_log = logging.getLogger(__name__)
_RETRIES = 5
"""How often a unit is begun again after its worker or node was lost: one that kills its worker each
time must end."""
_QUEUED = 2
"""Units in hand per worker: one that is done, and one that waits for it."""

Told = tuple[int, str]
"""A level and a line of a worker's log."""


def on_ray(plan: Plan, units: Iterable[Unit]) -> Rows:
    """Do the units on a Ray cluster: an existing one, or one started on this machine.

    Each worker process loads a model once, and does unit after unit.

    Raises:
        UnilensError: Ray is not installed, the cluster is not to be reached or has no room for a
            worker, or a worker could not load a model.
    """
    ray = _ray()
    began = not ray.is_initialized()
    if began:
        _begin(ray, plan)
    try:
        yield from _results(ray, plan, units)
    finally:
        if began:
            ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise UnilensError(
            "the engine ray needs Ray; run: pip install 'unilens[ray]', or leave --engine out"
        ) from None
    return ray


def _begin(ray: Any, plan: Plan) -> None:
    engine = plan.engine
    wanted: dict[str, Any] = {"address": engine.address}
    if engine.address is None:
        room = engine.cpus * engine.workers if engine.workers else None
        wanted = {"num_cpus": room, "include_dashboard": False}
        path = os.pathsep.join(one or str(Path.cwd()) for one in sys.path)
        wanted["runtime_env"] = {"env_vars": {"PYTHONPATH": path}}
    try:
        ray.init(**wanted, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UnilensError(
            f"could not reach or start a Ray cluster ({engine.address or 'this machine'}): "
            f"{first_line(error)}; check engine.address"
        ) from error


def _results(ray: Any, plan: Plan, units: Iterable[Unit]) -> Rows:
    task = ray.remote(_unit_rows).options(
        num_cpus=plan.engine.cpus,
        num_gpus=plan.engine.gpus,
        max_calls=0,  # Ray's own choice for GPUs is a new process, and so a new model, each time
        max_retries=_RETRIES,
        scheduling_strategy="SPREAD",
    )
    at_once = _room(ray, plan)
    shared = ray.put(plan.model_dump(mode="json"))
    waiting: dict[Any, Unit] = {}
    for unit in units:
        waiting[task.remote(shared, unit)] = unit
        if len(waiting) >= at_once:
            yield _next(ray, plan, waiting)
    while waiting:
        yield _next(ray, plan, waiting)


def _room(ray: Any, plan: Plan) -> int:
    """Return how many units are in hand at once."""
    engine = plan.engine
    there = ray.cluster_resources()
    for name, each in (("CPU", engine.cpus), ("GPU", engine.gpus)):
        if each > there.get(name, 0):
            raise UnilensError(
                f"expected a Ray cluster with room for a worker ({name} {each:g}), got "
                f"{name} {there.get(name, 0):g} in all; ask for less in engine.cpus or engine.gpus"
            )
    if engine.workers and engine.address:
        return engine.workers
    fitting = int(there["CPU"] // engine.cpus)
    if engine.gpus:
        fitting = min(fitting, int(there["GPU"] / engine.gpus))
    return _QUEUED * max(fitting, engine.workers or 1)


def _next(ray: Any, plan: Plan, waiting: dict[Any, Unit]) -> list[Row]:
    """Return the rows of whichever unit is done first."""
    (done,), _ = ray.wait(list(waiting), num_returns=1)
    unit = waiting.pop(done)
    try:
        rows, told = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UnilensError):
            raise cause from None
        raise
    except ray.exceptions.RayError as error:
        _log.error("%s, %s: %s", unit.item.name, unit.model, error)
        reason = f"{type(error).__name__}: its worker was lost {_RETRIES + 1} times"
        return Workbench(plan).failed(unit, reason)
    for level, line in told:
        _log.log(level, line)
    return list(rows)


_benches: dict[str, Workbench] = {}
"""What this worker process has loaded, by plan."""


def _unit_rows(said: dict[str, Any], unit: Unit) -> tuple[list[Row], list[Told]]:
    """Return the rows of a unit and what was logged on the way; runs in a worker."""
    key = repr(said)
    if key not in _benches:
        plan = make_plan(said)
        torch.set_num_threads(plan.engine.cpus)
        _benches[key] = Workbench(plan)
    with _Listening() as heard:
        rows = [row for some in _benches[key].rows(unit) for row in some]
    return rows, heard.lines


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

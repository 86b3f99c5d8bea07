"""Where units of work are done: in this process, or by Ray; the rows do not depend on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .plan import Plan
from .work import Rows, Unit, Workbench

Engine = Callable[[Plan, Iterable[Unit]], Rows]


def engine_of(plan: Plan) -> Engine:
    """Return the engine that a plan names."""
    if plan.engine.name == "local":
        return local
    from .cluster import on_ray

    return on_ray


def local(plan: Plan, units: Iterable[Unit]) -> Rows:
    """Do the units one after the other in this process; rows come one method at a time."""
    workbench = Workbench(plan)
    for unit in units:
        yield from workbench.rows(unit)

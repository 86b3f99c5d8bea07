"""A run: what the plan asks for and is not yet there is done, and written down as it comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnilensError
from .data import Item, open_source
from .engines import engine_of
from .plan import Plan
from .rows import FAILED, Row
from .store import LOG, Done, Store, Writing
from .work import Unit

_log = logging.getLogger(__name__)
WRITE_EVERY = 10.0
"""Seconds: what an interruption can cost, beside the map that is being made."""
WRITE_AT = 5000
"""Rows that are kept in memory, at the most."""

Told = Callable[[int, int, int, str], None]
"""Is told how many rows there are, how many are planned, how many failed, and of which image."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        written: rows, in this session.
        before: rows that were there.
        failed: rows of the whole run that failed.
        seconds: that this session took.
    """

    written: int
    before: int
    failed: int
    seconds: float


def quiet(done: int, planned: int, failed: int, what: str) -> None:
    """Be told, and do nothing with it."""


def run(
    plan: Plan,
    folder: Path,
    *,
    retry_failed: bool = False,
    tell: Told = quiet,
) -> Outcome:
    """Do what a plan asks for, and write every row to a folder; go on where it was interrupted.

    Args:
        plan: models, methods, metrics and data.
        folder: of the run; it is made where it does not exist.
        retry_failed: whether rows that failed are done again.
        tell: see `Told`.

    Returns:
        How it ended.

    Raises:
        UnilensError: the data or a model are not to be had, another process writes to the folder,
            it holds the run of another plan, or it cannot be written. What was written is kept.
    """
    began = time.monotonic()
    items = _items(plan)
    with Writing(folder):
        store = Store.create(folder, plan, len(items))
        with logging_to(folder / LOG):
            return _run(plan, store, items, retry_failed, tell, began)


def planned_rows(plan: Plan) -> tuple[int, int]:
    """Return how many images a plan takes, and how many rows it asks for."""
    images = len(_items(plan))
    return images, _count(plan, images)


def _items(plan: Plan) -> Sequence[Item]:
    data = plan.data
    return open_source(data.source, labels=data.labels, split=data.split, limit=data.limit)


def _count(plan: Plan, images: int) -> int:
    maps = len(plan.data.changes) * len(plan.models) * len(plan.methods)
    return images * maps * len(plan.metrics)


def _run(
    plan: Plan, store: Store, items: Sequence[Item], retry_failed: bool, tell: Told, began: float
) -> Outcome:
    store.clean()
    done = store.done()
    if retry_failed:
        _log.info("%d failed rows are done again", store.forget_failed())
        done = store.done()
    if strays := done.images - {item.key for item in items}:
        _log.warning("%d images of this run are not in the data; their rows stay", len(strays))
    planned = _count(plan, len(items))
    _log.info("%d rows planned, %d there", planned, len(done))
    written, failed = 0, done.failed
    tell(len(done), planned, failed, "")
    pending: list[Row] = []
    last = time.monotonic()
    with closing(engine_of(plan)(plan, units_of(plan, items, done))) as rows:
        try:
            for some in rows:
                pending += some
                failed += sum(row["status"] == FAILED for row in some)
                if time.monotonic() - last > WRITE_EVERY or len(pending) >= WRITE_AT:
                    written += _flush(store, pending)
                    _log.info("%d of %d rows", len(done) + written, planned)
                    last = time.monotonic()
                shown = f"{some[0]['image']}: {some[0]['model']}" if some else ""
                tell(len(done) + written + len(pending), planned, failed, shown)
        finally:
            written += _flush(store, pending)
            _log.info("%d rows written; %d in all have failed", written, failed)
    return Outcome(written, len(done), failed, time.monotonic() - began)


def _flush(store: Store, pending: list[Row]) -> int:
    store.append(pending)
    count = len(pending)
    pending.clear()
    return count


def units_of(plan: Plan, items: Sequence[Item], done: Done) -> Iterator[Unit]:
    """Yield what is yet to be done, one model after the other, so that each is loaded once."""
    for model in plan.models:
        for number, item in enumerate(items):
            for change in plan.data.changes:
                corruption = (change.name, change.severity) if change else ("", 0)
                place = (item.key, *corruption, model)
                missing = {
                    method: wanted
                    for method in plan.methods
                    if (wanted := [one for one in plan.metrics if not done.has(place, method, one)])
                }
                if missing:
                    yield Unit(item, change, model, missing, number < plan.pictures)


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what unilens logs to a file, beside wherever it goes anyway."""
    logger = logging.getLogger("unilens")
    level = logger.level
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UnilensError(f"could not write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)

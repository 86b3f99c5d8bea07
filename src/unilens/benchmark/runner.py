"""A run: the rows that the plan asks for and the folder lacks are computed and written."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnilensError
from ..manifold import as_manifold
from ..output.text import LogFormatter
from .code import check_code
from .data import Item, open_source
from .plan import Plan
from .processes import in_processes
from .row_index import RowIndex
from .rows import FAILED, Row
from .store import LOG, Store, folder_lock
from .work import RowBatches, Unit, Workbench

_log = logging.getLogger(__name__)
WRITE_EVERY = 10.0
"""Seconds between writes: the work that an interruption can lose, besides the current map."""
WRITE_AT = 5000
"""Rows kept in memory before they are written."""

ProgressCallback = Callable[[int, int, int, str], None]
"""Called with the numbers of rows done, planned and failed, and the current image and model."""


@dataclass(frozen=True)
class Outcome:
    """The result of one session of a run.

    Attributes:
        written: rows of this session.
        before: rows of earlier sessions.
        failed: rows of the whole run that failed.
        seconds: of this session.
    """

    written: int
    before: int
    failed: int
    seconds: float


def run(
    plan: Plan,
    folder: Path,
    *,
    retry_failed: bool = False,
    allow_code: bool = False,
    on_progress: ProgressCallback = lambda done, planned, failed, current: None,
) -> Outcome:
    """Compute the rows of a plan and write them to a folder; continue an interrupted run.

    Args:
        plan: models, methods, metrics and data.
        folder: of the run; created where it does not exist.
        retry_failed: whether rows that failed are computed again.
        allow_code: whether functions that the plan names (`py:`) are imported and run.
        on_progress: see `ProgressCallback`.

    Raises:
        UnilensError: the plan names code, which is not allowed; the data or a model cannot be
            loaded, another process writes to the folder, it holds the run of another plan, or it
            cannot be written. Written rows are kept.
    """
    began = time.monotonic()
    check_code(() if allow_code else plan.code)
    for name in plan.manifolds:  # refused before any image
        as_manifold(name)
    items = _items(plan)
    with folder_lock(folder):
        store = Store.create(folder, plan, len(items))
        with _logging_to(folder / LOG):
            return _run(plan, store, items, retry_failed, on_progress, began)


def planned_rows(plan: Plan) -> tuple[int, int]:
    """Return the numbers of images and rows of a plan."""
    images = len(_items(plan))
    return images, _count(plan, images)


def _items(plan: Plan) -> Sequence[Item]:
    data = plan.data
    return open_source(data.source, labels=data.labels, split=data.split, limit=data.limit)


def _count(plan: Plan, images: int) -> int:
    maps = len(plan.data.conditions) * len(plan.models) * len(plan.methods)
    return images * maps * len(plan.metrics)


def _run(
    plan: Plan,
    store: Store,
    items: Sequence[Item],
    retry_failed: bool,
    on_progress: ProgressCallback,
    began: float,
) -> Outcome:
    store.clean()
    index = store.index()
    if retry_failed:
        _log.info("%d failed rows are computed again", store.forget_failed())
        index = store.index()
    if strays := index.images - {item.key for item in items}:
        _log.warning("%d images of this run are not in the data; their rows stay", len(strays))
    planned = _count(plan, len(items))
    _log.info("%d rows planned, %d there", planned, len(index))
    written, failed = 0, index.failed
    on_progress(len(index), planned, failed, "")
    pending: list[Row] = []
    last = time.monotonic()
    with closing(_engine(plan)(plan, _units_of(plan, items, index))) as batches:
        try:
            for rows in batches:
                pending += rows
                failed += sum(row["status"] == FAILED for row in rows)
                if time.monotonic() - last > WRITE_EVERY or len(pending) >= WRITE_AT:
                    written += _flush(store, pending)
                    _log.info("%d of %d rows", len(index) + written, planned)
                    last = time.monotonic()
                current = f"{rows[0]['image']}: {rows[0]['model']}" if rows else ""
                on_progress(len(index) + written + len(pending), planned, failed, current)
        finally:
            written += _flush(store, pending)
            _log.info("%d rows written; %d in all have failed", written, failed)
    return Outcome(written, len(index), failed, time.monotonic() - began)


def _flush(store: Store, pending: list[Row]) -> int:
    store.append(pending)
    count = len(pending)
    pending.clear()
    return count


def _engine(plan: Plan) -> Callable[[Plan, Iterable[Unit]], RowBatches]:
    """Return the function that computes units: in this process, in several, or on a cluster."""
    if plan.engine.name == "ray":
        from .cluster import on_ray

        return on_ray
    if plan.engine.workers is None:
        return _in_this_process
    return functools.partial(in_processes, plan.engine.workers)


def _in_this_process(plan: Plan, units: Iterable[Unit]) -> RowBatches:
    workbench = Workbench(plan)
    for unit in units:
        yield from workbench.rows(unit)


def _units_of(plan: Plan, items: Sequence[Item], index: RowIndex) -> Iterator[Unit]:
    """Yield the units with missing rows, model by model, so that each model is loaded once."""
    for model in plan.models:
        for number, item in enumerate(items):
            for corruption in plan.data.conditions:
                condition = (corruption.name, corruption.severity) if corruption else ("", 0)
                key = (item.key, *condition, model)
                missing = {
                    method: metrics
                    for method in plan.methods
                    if (metrics := [m for m in plan.metrics if not index.has(key, method, m)])
                }
                if missing:
                    pictured = number < plan.pictures
                    yield Unit(item, corruption, model, missing, pictured, index.contents.get(key))


class _LogFile(logging.FileHandler):
    """A log that a full disk leaves incomplete, and the run goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Print nothing."""


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write unilens's log to a file too."""
    logger = logging.getLogger("unilens")
    level = logger.level
    try:
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(f"{path.name} is a link, a folder or a device")
        handler = _LogFile(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UnilensError(
            f"could not write {path}: {error.strerror or error}; move it away"
        ) from error
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):
            handler.close()
        logger.setLevel(level)

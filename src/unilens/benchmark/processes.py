"""Units in several processes of this machine."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from ..errors import UnilensError
from .plan import Plan
from .rows import Row
from .work import RowBatches, Unit
from .worker import LogLine, WorkerSetup, logged, unit_rows

_UNITS_PER_WORKER = 2
"""Units submitted per worker: one that runs, and one that waits."""


def in_processes(workers: int, plan: Plan, units: Iterable[Unit]) -> RowBatches:
    """Compute units in so many processes, each with `engine.cpus` threads; none outlives the run.

    Raises:
        UnilensError: a process ended without a word, or could not load a model.
    """
    units = iter(units)
    first = next(units, None)
    if first is None:
        return
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _prepare)
    task = functools.partial(unit_rows, WorkerSetup.of(plan), device=plan.device)
    waiting: set[Future[tuple[list[Row], list[LogLine]]]] = set()
    try:
        for unit in itertools.chain([first], units):
            waiting.add(pool.submit(task, unit))
            if len(waiting) >= _UNITS_PER_WORKER * workers:
                yield from _finished(waiting)
        while waiting:
            yield from _finished(waiting)
    except BrokenProcessPool as error:
        raise UnilensError(
            f"one of {workers} worker processes ended without a word, as where memory runs out; "
            "run the same command with fewer workers: rows that are written stay"
        ) from error
    finally:
        own = set(multiprocessing.active_children()) - others
        pool.shutdown(wait=False, cancel_futures=True)
        if waiting:  # stopped early: what they compute is lost
            for process in own:
                process.terminate()
        for process in own:
            process.join()


def _finished(waiting: set[Future[tuple[list[Row], list[LogLine]]]]) -> RowBatches:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        rows = logged(*future.result())
        waiting.discard(future)
        yield rows


def _prepare() -> None:
    """Leave Ctrl-C to the process that sends the units, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end, name="unilens-parent", daemon=True).start()

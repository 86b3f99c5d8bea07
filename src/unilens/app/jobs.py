"""Work that shows how far it is and can be cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[float, str], object]
"""Takes the fraction of the work that is done, and what is being done."""


class Cancelled(Exception):  # noqa: N818 - nothing has gone wrong
    """The user has had enough."""


class Job:
    """One piece of work: its passes are counted, and its next pass ends it where it is cancelled.

    Args:
        report: told how far it is, whenever a hundredth is done; None for nobody.
    """

    def __init__(self, report: Report | None = None) -> None:
        self._report = report
        self._cancelled = threading.Event()
        self._first, self._share, self._text = 0.0, 1.0, ""
        self._expected, self._done, self._told = 1, 0, -1.0

    def cancel(self) -> None:
        """End the work at its next pass."""
        self._cancelled.set()

    def part(self, text: str, first: float, share: float, passes: int) -> None:
        """Begin a part.

        Args:
            text: what it does.
            first: the fraction of the whole work that is done before it.
            share: its own share of the whole work.
            passes: how many points it takes.
        """
        self._text, self._first, self._share = text, first, share
        self._expected, self._done = max(passes, 1), 0
        self._tell(force=True)

    def on_pass(self, points: int) -> None:
        """Note a pass; raise `Cancelled` where the work is to end."""
        self._done += points
        self._tell()

    def _tell(self, force: bool = False) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        fraction = self._first + self._share * min(self._done / self._expected, 1.0)
        if self._report is not None and (force or fraction - self._told >= 0.01):
            self._told = fraction
            self._report(fraction, self._text)


class Jobs:
    """The work of every visitor, so that it can be cancelled from elsewhere."""

    def __init__(self) -> None:
        self._running: dict[str, set[Job]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def of(self, visitor: str, job: Job) -> Iterator[Job]:
        """Keep a job while it runs."""
        with self._lock:
            self._running.setdefault(visitor, set()).add(job)
        try:
            yield job
        finally:
            with self._lock:
                jobs = self._running[visitor]
                jobs.discard(job)
                if not jobs:
                    del self._running[visitor]

    def cancel(self, visitor: str) -> int:
        """Cancel all that a visitor has running, and return how many jobs that was."""
        with self._lock:
            jobs = list(self._running.get(visitor, ()))
        for job in jobs:
            job.cancel()
        return len(jobs)

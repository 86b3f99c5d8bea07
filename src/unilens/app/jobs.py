"""Work that reports its progress and can be cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import require

MAX_SECONDS = 900.0
"""What a job may take: all others wait for it."""
ProgressCallback = Callable[[float, str], object]
"""Takes the finished fraction of the work, and a description of the current step."""


class Cancelled(Exception):  # noqa: N818 - a visitor's choice and no error
    """The visitor has cancelled the work."""


class Job:
    """One piece of work: it counts its passes, and ends at its next pass if it is cancelled.

    Args:
        on_progress: called whenever another hundredth is done; None for no reports.
    """

    def __init__(self, on_progress: ProgressCallback | None = None) -> None:
        self._on_progress = on_progress
        self._cancelled = threading.Event()
        self._start, self._share, self._text = 0.0, 1.0, ""
        self._expected, self._done, self._reported = 1, 0, -1.0
        self._seconds = 0.0
        self._began: float | None = None

    def cancel(self) -> None:
        """End the work at its next pass."""
        self._cancelled.set()

    def begin(self, text: str, start: float, share: float, passes: int) -> None:
        """Begin a step.

        Args:
            text: description of the step.
            start: fraction of the whole work that is done before it.
            share: fraction of the whole work that it takes.
            passes: expected number of points it passes through the model.
        """
        self._text, self._start, self._share = text, start, share
        self._expected, self._done = max(passes, 1), 0
        self._report(always=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Count the seconds for which it runs, and not those for which it waits for others."""
        self._began = time.monotonic()
        try:
            yield
        finally:
            self._seconds, self._began = self._taken(), None

    def on_pass(self, points: int) -> None:
        """Count a pass of this many points.

        Raises:
            Cancelled: the job is cancelled.
            UnilensError: it takes too long.
        """
        self._done += points
        self._report()
        require(
            self._taken() <= MAX_SECONDS,
            f"expected work of at most {MAX_SECONDS / 60:.0f} minutes, and this takes longer; "
            "choose fewer methods or lower n_steps or n_samples",
        )

    def _taken(self) -> float:
        """Return the seconds for which it has run."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    def _report(self, always: bool = False) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        fraction = self._start + self._share * min(self._done / self._expected, 1.0)
        if self._on_progress is not None and (always or fraction - self._reported >= 0.01):
            self._reported = fraction
            self._on_progress(fraction, self._text)


class Jobs:
    """The running jobs of every visitor, so that another request can cancel them."""

    def __init__(self) -> None:
        self._running: dict[str, set[Job]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def track(self, visitor: str, job: Job) -> Iterator[Job]:
        """Keep a job in the list while it runs."""
        with self._lock:
            self._running.setdefault(visitor, set()).add(job)
        try:
            yield job
        finally:
            with self._lock:
                self._running[visitor].discard(job)
                if not self._running[visitor]:
                    del self._running[visitor]

    def cancel(self, visitor: str) -> int:
        """Cancel all jobs of a visitor, and return their number."""
        with self._lock:
            jobs = list(self._running.get(visitor, ()))
        for job in jobs:
            job.cancel()
        return len(jobs)

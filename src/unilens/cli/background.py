"""Work in the background of a command, said to be done in the order in which it was begun."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self


class InBackground:
    """Writes the files of one photograph while the next is explained, and says so in order."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._started: tuple[Future[None], Callable[[], None]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._thread:  # waits, after an error too
            self.wait()

    def start(self, work: Callable[[], None], say: Callable[[], None]) -> None:
        """Start the work, once that before is done and said."""
        self.wait()
        self._started = self._thread.submit(work), say

    def wait(self) -> None:
        """Wait for the work, raise its error, and say that it is done."""
        started, self._started = self._started, None
        if started is not None:
            work, say = started
            work.result()
            say()

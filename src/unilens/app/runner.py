"""One piece of work at a time, for a job that can be cancelled, with results that are kept."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar, cast

import numpy
from cachetools import LRUCache
from torch import Tensor

from .jobs import Cancelled, Job

T = TypeVar("T")
CACHE_BYTES = 128 * 2**20


class JobRunner:
    """Runs one job at a time, since a single pass uses all cores, and caches results.

    Args:
        cache_bytes: memory for results that are shown again.
    """

    def __init__(self, cache_bytes: int = CACHE_BYTES) -> None:
        self.cache: LRUCache[Hashable, object] = LRUCache(cache_bytes, _bytes_of)
        self._closed = threading.Event()
        self._cache_lock = threading.Lock()
        self._work_lock = threading.Lock()
        self._job: Job | None = None

    def close(self, seconds: float = 30.0) -> None:
        """End all work at its next pass, and wait for that: the process must not end within one."""
        self._closed.set()
        if self._work_lock.acquire(timeout=seconds):
            self._work_lock.release()

    def on_pass(self, points: int) -> None:
        """Count a pass for the job that runs; raise `Cancelled` if it is to end."""
        if self._closed.is_set():
            raise Cancelled
        if self._job is not None:
            self._job.on_pass(points)

    def run(self, key: Hashable, job: Job, compute: Callable[[], T]) -> T:
        """Return a cached result, or compute it for a job when no other runs."""

        def work() -> T:
            with self._work_lock, self._running(job):
                return self._cached_or(key, compute)  # another job may have been the same

        return self.cached(key, work)

    def cached(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return a cached value, or make it and cache it."""
        value = self._cached_or(key, make)
        with self._cache_lock, contextlib.suppress(ValueError):  # too large for the cache
            self.cache[key] = value
        return value

    def _cached_or(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._cache_lock:
            if key in self.cache:
                return cast(T, self.cache[key])
        return make()

    @contextlib.contextmanager
    def _running(self, job: Job) -> Iterator[None]:
        self._job = job
        try:
            with job.running():
                self.on_pass(0)  # also what was waiting when the page was closed must not begin
                yield
        finally:
            self._job = None


def _bytes_of(value: object) -> int:
    """Return roughly how much memory a value takes."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, numpy.ndarray):
        return value.nbytes
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values())) + 100
    if isinstance(value, Sequence):
        return sum(map(_bytes_of, value)) + 100
    names = getattr(value, "__dataclass_fields__", ())
    return 200 + sum(_bytes_of(getattr(value, name)) for name in names)

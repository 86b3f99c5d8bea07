"""Threads that run passes, several at a time on the CPU, without effect on other threads."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Results:
    """Collects the tensors of many passes, each point in its row."""

    def __init__(self, count: int) -> None:
        self.columns: list[Tensor] = []
        self._count = count
        self._lock = threading.Lock()

    def put(self, index: Tensor, values: Sequence[Tensor]) -> None:
        """Store tensors `(m, ...)` as rows `index` `(m,)` of the columns."""
        with self._lock:
            if not self.columns:
                self.columns = [
                    value.new_empty((self._count, *value.shape[1:])) for value in values
                ]
        for column, value in zip(self.columns, values, strict=True):
            column[index] = value


def is_on_cpu(device: torch.device | None) -> bool:
    """Return whether a module with tensors there, or without any, runs on the CPU."""
    return device is None or device.type == "cpu"


class Workers:
    """Runs passes: on the CPU one per thread, several at a time; elsewhere one after the other.

    Threads live as long as one `run`, so nothing waits in the background between calls, a fork
    finds none, and after Ctrl-C each ends with the pass that it is in.
    """

    def __init__(self, device: torch.device | None) -> None:
        self._device = device or torch.device("cpu")
        self._on_cpu = is_on_cpu(device)
        limited = self._on_cpu and _openmp() is not None
        self.count = torch.get_num_threads() if limited else 1

    def run(self, work: Callable[[Tensor], None], items: Sequence[Tensor]) -> None:
        """Do the work on every item; the first error ends it and is raised."""
        if self.count == 1 or len(items) < 2:
            with self.alone():
                for item in items:
                    work(item)
            return
        _Run(work, items).on_threads(min(self.count, len(items)))

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Run the block as a pass runs, on the calling thread, outside of its autocast."""
        kind = self._device.type
        off = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else _NOTHING
        with _modes_taken_off(), off, _single_threaded() if self._on_cpu else _NOTHING:
            yield


_NOTHING = contextlib.nullcontext()


class _Run:
    """The items of one call, which threads take from in order."""

    def __init__(self, work: Callable[[Tensor], None], items: Sequence[Tensor]) -> None:
        self._work, self._items = work, iter(items)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._stopped = False

    def on_threads(self, count: int) -> None:
        threads = [
            threading.Thread(target=self._drain, name=f"unilens-{number}", daemon=True)
            for number in range(count)
        ]
        started = []
        try:
            for thread in threads:
                started.append(thread)
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._stopped = True
            for thread in started:
                _join(thread)
        error, self._error = self._error, None
        if error is not None:
            try:
                raise error
            finally:
                del error  # its traceback holds this frame: together they would be a cycle

    def _drain(self) -> None:
        with _single_threaded():
            while not self._stopped:
                with self._lock:
                    item = next(self._items, None)
                if item is None:
                    return
                try:
                    self._work(item)
                except BaseException as error:
                    self._error = self._error or error
                    self._stopped = True


def _join(thread: threading.Thread) -> None:
    """Wait for a thread, into whose start an interrupt may have fallen."""
    for _ in range(20):
        try:
            thread.join()
            return
        except RuntimeError:  # not started, or not yet
            time.sleep(0.001)
    threading._limbo.pop(thread, None)  # type: ignore[attr-defined]  # Python would count it


@contextlib.contextmanager
def _modes_taken_off() -> Iterator[None]:
    """Take off torch's modes that an interrupt left on: Ctrl-C may fall between on and off."""
    stacks: tuple[Callable[[], list[Any]], ...] = (
        torch.overrides._get_current_function_mode_stack,
        torch.utils._python_dispatch._get_current_dispatch_mode_stack,
    )
    before, handled = [len(stack()) for stack in stacks], sys.exc_info()[1]
    try:
        yield
    except BaseException as error:
        interrupt = _interrupt_in(error, handled)
        if interrupt in (None, error):
            raise
        raise interrupt from None
    finally:
        for stack, count in zip(stacks, before, strict=True):
            while len(modes := stack()) > count:
                modes[-1].__exit__(None, None, None)


def _interrupt_in(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """Return the interrupt behind an error, if any, after ending the blocks that it left open.

    A block of torch that took a mode off puts it on again when it ends, and the traceback keeps
    it open; the mode's own end is an error of another type until then. What the caller was
    handling before (`handled`) is not behind the error.
    """
    errors = [error]
    while (before := errors[-1].__context__) not in (None, handled):
        errors.append(before)
    interrupts = [each for each in errors if not isinstance(each, Exception)]
    if not interrupts:
        return None
    for each in errors:
        traceback.clear_frames(each.__traceback__)
    return interrupts[-1]


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Run torch's operations on the calling thread alone; no other thread is affected.

    `torch.set_num_threads` changes what every new thread of the process begins with. The numbers
    that OpenMP and MKL keep belong to a thread, and are set in its place.
    """
    openmp = _openmp()
    if openmp is None:
        yield
        return
    torch.get_num_threads()  # a thread's first question gives it the process's number
    before = openmp.omp_get_max_threads()
    openmp.omp_set_num_threads(1)
    # MKL asks OpenMP only in a process that has never called `torch.set_num_threads`.
    mkl = getattr(openmp, "MKL_Set_Num_Threads_Local", None)
    before_of_mkl = mkl(1) if mkl else 0
    try:
        yield
    finally:
        openmp.omp_set_num_threads(before)
        if mkl:
            mkl(before_of_mkl)


@functools.cache
def _openmp() -> Any:
    """Return the OpenMP library that torch is linked with, or None where it is not found."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "libiomp5md.dll"):
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(str(folder / name))
            if hasattr(library, "omp_set_num_threads"):
                return library
    return None

"""How passes of a model are run side by side, and the memory they take."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import psutil
import torch
from torch import Tensor, nn

from .errors import UnilensError


class Results:
    """Where passes put what they give, each point in its place."""

    def __init__(self, count: int) -> None:
        self.columns: list[Tensor] = []
        self._count = count
        self._lock = threading.Lock()

    def put(self, index: Tensor, parts: Sequence[Tensor]) -> None:
        """Store tensors `(m, ...)` as rows `index` `(m,)` of the columns."""
        with self._lock:
            if not self.columns:
                self.columns = [part.new_empty((self._count, *part.shape[1:])) for part in parts]
        for column, part in zip(self.columns, parts, strict=True):
            column[index] = part


class Workers:
    """Runs passes side by side: on the CPU one thread each, elsewhere one after the other."""

    def __init__(self, device: torch.device | None) -> None:
        on_cpu = device is None or device.type == "cpu"
        self.count = torch.get_num_threads() if on_cpu else 1
        self._on_cpu = on_cpu
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()
        self._local = threading.local()
        self._lock = threading.Lock()

    def run(self, work: Callable[[Tensor], None], parts: Sequence[Tensor]) -> None:
        """Do the work on every part."""
        if not self._on_cpu:
            for part in parts:
                work(part)
            return
        if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
            self._pool, self._process = _single_threaded_pool(self.count), os.getpid()
        for _ in self._pool.map(work, parts):
            pass

    def own(self, module: nn.Module) -> nn.Module:
        """Return the calling thread's own copy of a module, since a forward may keep state."""
        if not self._on_cpu:
            return module
        copies: dict[int, nn.Module] = self._local.__dict__.setdefault("copies", {})
        if id(module) not in copies:
            with self._lock:
                copies[id(module)] = working_copy(module)
        return copies[id(module)]


def _single_threaded_pool(count: int) -> ThreadPoolExecutor:
    """Return a pool whose threads each run torch on themselves alone."""
    before = torch.get_num_threads()
    ready = threading.Barrier(count + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first question gives it the process's number again
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="unilens")
    for _ in range(count):
        pool.submit(begin)
    ready.wait()
    # The number is each thread's own, but new threads take the last one that was set.
    torch.set_num_threads(before)
    return pool


def working_copy(model: nn.Module) -> nn.Module:
    """Return a copy with frozen parameters that share the model's storage, and its own buffers."""
    _refuse_closures(model)
    try:
        with torch.inference_mode(False):
            memo: dict[int, object] = {
                id(value): nn.Parameter(_shared(value), requires_grad=False)
                for value in model.parameters()
            }
            for part in model.modules():
                for value in _tensors(vars(part)):
                    if not value.is_leaf:  # kept from an earlier pass, with the graph behind it
                        memo[id(value)] = value.detach()
            return copy.deepcopy(model, memo)
    except Exception as error:  # a user's module can hold anything: locks, streams, handles
        raise UnilensError(
            f"expected a model that copy.deepcopy can copy, got {type(error).__name__}: "
            f"{first_line(error)}; take out of it what cannot be copied"
        ) from error


def _refuse_closures(model: nn.Module) -> None:
    """Raise where a function that the model keeps holds the model: copies would still run it."""
    parts = {id(part) for part in model.modules()}
    for name, part in model.named_modules():
        for key, value in vars(part).items():
            for cell in getattr(value, "__closure__", None) or ():
                held = None
                with contextlib.suppress(ValueError):  # an empty cell
                    held = cell.cell_contents
                if id(held) in parts or id(getattr(held, "__self__", None)) in parts:
                    raise UnilensError(
                        f"expected a model that can be copied, but {name or 'the model'}.{key} is "
                        "a function that holds the model itself; make it a method of a module"
                    )


def _tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in nested lists, tuples and mappings."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _tensors(one)


def _shared(value: Tensor) -> Tensor:
    """Return a tensor on the same storage; a copy where autograd could not use it."""
    return value.clone() if value.is_inference() else value.detach()


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory")
    )


def trim() -> None:
    """Give free memory back to the system, where the C library can (glibc)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> int:
    """Return the bytes that a device has free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def first_line(error: BaseException) -> str:
    """Return what an error says, its first line alone."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

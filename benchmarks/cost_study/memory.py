"""The peak memory of a call above what was in use before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from unilens._engine.memory import trim

RESIDENT, ALLOCATED = "resident set of the process", "allocated on the device"
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""Makes Linux reset the peak resident set; see proc(5)."""


class MemoryUse(NamedTuple):
    """Bytes that a call took.

    Attributes:
        above: the peak above what was in use before; None where it cannot be measured.
        before: in use before the call.
        of: what was measured, in words; None where nothing was.
    """

    above: int | None = None
    before: int | None = None
    of: str | None = None


def watch(call: Callable[[], object], device: torch.device) -> MemoryUse:
    """Make a call, and return the memory that it took.

    On the CPU of Linux it is the process's resident set, after free memory was returned to the
    system; on CUDA it is torch's allocations. Elsewhere the call is made and nothing is measured.
    """
    if device.type == "cuda":
        return _watch_cuda(call, device)
    if device.type == "cpu":
        trim()
        if _reset_peak():
            return _watch_resident(call)
    call()
    return MemoryUse()


def _watch_resident(call: Callable[[], object]) -> MemoryUse:
    before = _status("VmRSS")
    call()
    return MemoryUse(max(0, _status("VmHWM") - before), before, RESIDENT)


def _watch_cuda(call: Callable[[], object], device: torch.device) -> MemoryUse:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return MemoryUse(torch.cuda.max_memory_allocated(device) - before, before, ALLOCATED)


def _reset_peak() -> bool:
    """Reset the peak resident set to the current one; return whether that is possible."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    """Return a size from this process's status, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0

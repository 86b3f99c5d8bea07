"""The most memory that a call takes beyond what was taken before it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from ..._engine.memory import trim

RESIDENT, ALLOCATED = "resident set of the process", "allocated on the device"
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What makes Linux forget the largest resident set so far; see proc(5)."""


class Memory(NamedTuple):
    """Bytes that a call took.

    Attributes:
        above: the most, beyond what was taken before; None where it cannot be measured.
        before: what was taken before it.
        of: what was measured, in words; None where nothing was.
    """

    above: int | None = None
    before: int | None = None
    of: str | None = None


def watch(call: Callable[[], object], device: torch.device) -> Memory:
    """Do a call, and return the memory that it took.

    On the CPU of Linux it is the process's resident set, after free memory was given back; on CUDA
    what torch has allocated. Elsewhere the call is done and nothing is known.
    """
    if device.type == "cuda":
        return _watch_cuda(call, device)
    if device.type == "cpu":
        trim()
        if _reset_peak():
            return _watch_resident(call)
    call()
    return Memory()


def _watch_resident(call: Callable[[], object]) -> Memory:
    before = _status("VmRSS")
    call()
    return Memory(max(0, _status("VmHWM") - before), before, RESIDENT)


def _watch_cuda(call: Callable[[], object], device: torch.device) -> Memory:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return Memory(torch.cuda.max_memory_allocated(device) - before, before, ALLOCATED)


def _reset_peak() -> bool:
    """Make the largest resident set so far the present one; return whether that can be done."""
    try:
        _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    """Return one of the sizes that Linux says of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", _STATUS.read_text(encoding="utf-8"))
    return int(found[1]) * 1024 if found else 0

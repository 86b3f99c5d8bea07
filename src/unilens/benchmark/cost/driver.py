"""What the process that writes a run has to hold and read per row, measured on made-up rows."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..plan import Plan
from ..rows import OK, Row
from ..store import Store

_ROWS = 20_000
_PER_SHARD = 1_000


@dataclass(frozen=True, slots=True)
class Driver:
    """What one row costs the process that writes a run.

    Attributes:
        key_bytes: memory that the key of a row takes while the run goes on, after a resumption.
        digest_bytes: memory at the most while the digest is worked out, per row.
        key_seconds: to read the key of a row.
        shard_seconds: to open a shard.
    """

    key_bytes: float
    digest_bytes: float
    key_seconds: float
    shard_seconds: float


def measure_driver(plan: Plan) -> Driver:
    """Measure what a row costs, on rows of a plan's models, methods and metrics without values.

    A shard's own time is what the same rows take longer in shards of one tenth of the size.
    """
    with tempfile.TemporaryDirectory(prefix="unilens-") as place:
        large = _filled(plan, Path(place, "large"), _PER_SHARD)
        small = _filled(plan, Path(place, "small"), _PER_SHARD // 10)
        few, many = _seconds(large.done), _seconds(small.done)
        more = len(small.shards) - len(large.shards)
        per_shard = max(0.0, many - few) / more
        return Driver(
            _held(large.done) / _ROWS,
            _peak(large.digest) / _ROWS,
            max(0.0, few - per_shard * len(large.shards)) / _ROWS,
            per_shard,
        )


def _filled(plan: Plan, folder: Path, per_shard: int) -> Store:
    folder.mkdir()
    store = Store.create(folder, plan)
    rows = _rows(plan)
    for _ in range(_ROWS // per_shard):
        store.append([next(rows) for _ in range(per_shard)])
    return store


def _rows(plan: Plan) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        for model in plan.models:
            for method in plan.methods:
                for metric in plan.metrics:
                    yield {
                        "image": f"val/n01440764/ILSVRC2012_val_{number:08d}.JPEG",
                        "corruption": "",
                        "severity": 0,
                        "model": model,
                        "method": method,
                        "metric": metric,
                        "status": OK,
                        "value": 0.5,
                    }


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _held(call: Callable[[], object]) -> int:
    """Return the bytes that what a call returns takes."""
    tracemalloc.start()
    try:
        result = call()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del result
    return held


def _peak(call: Callable[[], object]) -> int:
    """Return the most bytes that a call takes."""
    tracemalloc.start()
    try:
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak

"""Memory and time per row of the process that writes a run, measured on made-up rows."""

from __future__ import annotations

import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from unilens.benchmark.plan import Plan
from unilens.benchmark.rows import OK, Row
from unilens.benchmark.store import Store

_ROWS = 20_000
_PER_SHARD = 1_000


@dataclass(frozen=True, slots=True)
class DriverCost:
    """The cost of one row to the process that writes a run.

    Attributes:
        key_bytes: memory of a row's key while a resumed run continues.
        digest_bytes: peak memory per row while the digest is computed.
        key_seconds: time to read the key of a row.
        shard_seconds: time to open a shard.
    """

    key_bytes: float
    digest_bytes: float
    key_seconds: float
    shard_seconds: float


def measure_driver(plan: Plan) -> DriverCost:
    """Measure the cost of a row, on rows of a plan's models, methods and metrics.

    The time of a shard is the difference between reading the same rows in shards of full and of
    one tenth of the size.
    """
    with tempfile.TemporaryDirectory(prefix="unilens-") as folder:
        large = _filled(plan, Path(folder, "large"), _PER_SHARD)
        small = _filled(plan, Path(folder, "small"), _PER_SHARD // 10)
        few, many = _seconds(large.index), _seconds(small.index)
        more = len(small.shards) - len(large.shards)
        per_shard = max(0.0, many - few) / more
        return DriverCost(
            _held(large.index) / _ROWS,
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
    """Return the memory of a call's result in bytes."""
    tracemalloc.start()
    try:
        result = call()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    del result
    return held


def _peak(call: Callable[[], object]) -> int:
    """Return the peak memory of a call in bytes."""
    tracemalloc.start()
    try:
        call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak

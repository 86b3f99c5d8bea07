"""The rows of a race: those known from a folder, and new ones, which it keeps."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy

from ...errors import UnilensError
from ..report.statistics import Array
from ..rows import OK, UNDEFINED, Row
from ..store import Store
from .purposes import INSERTION, Purpose

_WRITE_EVERY = 10.0


class Measured:
    """The rows of one model, by photograph, method and metric.

    Args:
        store: which has rows and keeps new ones; None keeps them in memory alone.

    Attributes:
        known: rows that this race has not measured.
    """

    def __init__(self, store: Store | None = None) -> None:
        self._rows: dict[tuple[str, str, str], Row] = {}
        self._contents: dict[str, str] = {}
        self._store = store
        self._pending: list[Row] = []
        self._written = time.monotonic()
        if store is not None and store.shards:
            self._add(store.table().to_pylist())
        self.known = len(self._rows)

    def add(self, rows: Iterable[Row]) -> None:
        """Add rows that are new, and write them from time to time."""
        new = list(rows)
        self._add(new)
        self._pending += new
        if time.monotonic() - self._written > _WRITE_EVERY:
            self.flush()

    def take(self, rows: Iterable[Row]) -> None:
        """Add rows that were measured elsewhere."""
        taken = list(rows)
        self.known += len(taken)
        self.add(taken)

    def flush(self) -> None:
        """Write all rows that are not written."""
        if self._store is not None:
            self._store.append(self._pending)
        self._pending = []
        self._written = time.monotonic()

    def get(self, image: str, method: str, metric: str) -> Row | None:
        """Return a row, or None."""
        return self._rows.get((image, method, metric))

    def content(self, image: str) -> str | None:
        """Return the digest of a photograph's pixels, where a row has it."""
        return self._contents.get(image)

    def value(self, image: str, method: str, purpose: Purpose) -> float:
        """Return how well a map serves a purpose, more is better; NaN where that is not known."""
        total = 0.0
        for metric, sign in purpose.metrics.items():
            row = self.get(image, method, metric)
            if row is None or row["status"] != OK or row.get("value") is None:
                return math.nan
            total += sign * row["value"]
        return total

    def values(self, images: Sequence[str], methods: Sequence[str], purpose: Purpose) -> Array:
        """Return the values `(images, methods)`; see `value`."""
        values = [[self.value(image, method, purpose) for method in methods] for image in images]
        return numpy.asarray(values, dtype=float).reshape(len(images), len(methods))

    def evidence(self, images: Sequence[str], method: str) -> Array:
        """Return the confidence that photographs lose when all of each is blurred `(images,)`."""
        lost = []
        for image in images:
            row = self.get(image, method, INSERTION) or {}
            curve = dict(row.get("curves") or ()).get("curve") or [math.nan]
            lost.append(curve[-1] - curve[0] if len(curve) > 1 else math.nan)
        return numpy.asarray(lost, dtype=float)

    def seconds(self, method: str) -> float | None:
        """Return the median seconds of a method's maps."""
        maps = {
            image: row["map_seconds"]
            for (image, name, _), row in self._rows.items()
            if name == method and row.get("map_seconds") is not None
        }
        return float(numpy.median(list(maps.values()))) if maps else None

    def _add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self._rows[row["image"], row["method"], row["metric"]] = row
            if row.get("content"):
                self._contents[row["image"]] = row["content"]


class EarlierRun:
    """The rows of another run of the same model, which need not be measured again.

    Args:
        folder: of a `benchmark` or a `recommend` run.
        model: by name.
        seed: of everything random.
        dtype: of the model.
        random_weights: whether it is untrained.
        methods: names in the new run, by their settings as rows have them.
        metrics: likewise.

    Raises:
        UnilensError: the folder has no run, or one of another model or seed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        seed: int,
        dtype: str,
        random_weights: bool,
        methods: Mapping[str, str],
        metrics: Mapping[str, str],
    ) -> None:
        store = Store(folder)
        plan = store.plan
        same = (model in plan.models, plan.seed, plan.dtype, plan.random_weights, plan.target)
        if same != (True, seed, dtype, random_weights, "predicted"):
            raise UnilensError(
                f"expected --from a run of {model}, seed {seed}, {dtype}, that explains the "
                f"predicted class, got {folder} of {', '.join(plan.models)}, seed {plan.seed}, "
                f"{plan.dtype}, {plan.target}{', random weights' * plan.random_weights}"
            )
        self._by_image: dict[str, list[Row]] = {}
        for row in store.table().to_pylist() if store.shards else ():
            method, metric = (
                names.get(row[f"{kind}_settings"] or "")
                for kind, names in (("method", methods), ("metric", metrics))
            )
            usable = row["status"] in (OK, UNDEFINED) and not row["corruption"]
            if usable and row["model"] == model and method and metric:
                if metric == INSERTION and not row["curves"]:
                    continue  # the curve's first point is needed
                new = row | {"method": method, "metric": metric}
                self._by_image.setdefault(row["image"], []).append(new)

    def rows(self, image: str) -> list[Row]:
        """Return the rows of a photograph, by its name."""
        return self._by_image.get(image, [])


def means(values: Array) -> Array:
    """Return the means over photographs `(methods,)`; minus infinity where there is no value."""
    known = numpy.isfinite(values)
    sums = numpy.where(known, values, 0.0).sum(0)
    return numpy.where(known.any(0), sums / numpy.maximum(known.sum(0), 1), -numpy.inf)

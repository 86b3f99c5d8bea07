"""The card of a metric, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..registry import Card


@dataclass(frozen=True, slots=True)
class MetricCard(Card):
    """What a reader should know before believing a metric.

    Attributes:
        higher_is_better: the direction; None where neither end is good.
        bounds: the lowest and highest value it can take; None where there is no bound.
        metric: the class; names of one class differ in its settings.
        needs: what it takes beside the map: "method", to explain again; "path", an `Attribution`
            with a baseline; "mask", where the object is.
    """

    higher_is_better: bool | None = True
    bounds: tuple[float | None, float | None] = (None, None)
    needs: tuple[str, ...] = ()
    metric: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a metric found.

    Attributes:
        values: `(B,)` in float64; NaN where the metric is undefined.
        breakdown: what the values are made of, by name (one per imputer, for example), each `(B,)`.
        details: curves, changed inputs, maps and the like, by name, each `(B, ...)`.
        provenance: metric, settings, seed, versions, device, dtype, seconds.
    """

    values: Tensor
    breakdown: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)

    @property
    def undefined(self) -> int:
        """How many inputs the metric is undefined for."""
        return int(self.values.isnan().sum())

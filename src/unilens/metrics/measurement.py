"""The result of a metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a metric found.

    Attributes:
        values: `(B,)` in float64; NaN where the metric is undefined.
        breakdown: what the values are made of, by name (one per imputer, for example), each `(B,)`.
        details: curves, changed inputs, maps and the like, by name, each `(B, ...)`.
        provenance: metric, settings, seed, versions, device, dtype, seconds.
        reasons: why the metric is undefined, one per input; empty where it has a value.
    """

    values: Tensor
    breakdown: Mapping[str, Tensor] = field(default_factory=dict)
    details: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    @property
    def undefined(self) -> int:
        """How many inputs the metric is undefined for."""
        return int(self.values.isnan().sum())

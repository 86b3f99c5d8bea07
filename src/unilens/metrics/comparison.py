"""The base of metrics that compare two maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._ops.precision import to_float64
from ..errors import require
from .base import Component, Metric
from .similarities import Similarity, Spearman, similarities


@dataclass(frozen=True)
class Comparison(Metric):
    """The base of metrics that compare the map with another map of the same input.

    Args:
        similarity: compares two maps: one of `unilens.metrics.similarities`.
    """

    components: ClassVar[tuple[Component, ...]] = (("similarity", similarities, "spearman"),)

    similarity: Similarity = Spearman()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        require(
            callable(self.similarity) and not isinstance(self.similarity, type),
            "expected similarity to be a function of two maps or an object such as Spearman(), got "
            f"{self.similarity!r}",
        )

    def _similarity(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how alike maps `(B, *S)` are `(B,)`; NaN where one is constant or not finite.

        One input at a time: how a sum is split over threads depends on how many there are.
        """
        rows = [
            self.similarity(a, b)
            if bool(b.isfinite().all())
            else torch.full((1,), torch.nan, dtype=torch.float64, device=b.device)
            for a, b in zip(first.split(1), second.split(1), strict=True)
        ]
        return torch.cat([to_float64(row) for row in rows])

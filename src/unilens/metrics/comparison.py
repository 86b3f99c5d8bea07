"""What metrics share that ask how alike two maps are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import to_float64
from ..errors import require
from .base import Metric
from .similarities import Similarity, Spearman


@dataclass(frozen=True)
class Comparison(Metric):
    """Compare the map with another picture or map of the same input.

    Args:
        similarity: how alike two maps are: one of `unilens.metrics.similarities`.
    """

    similarity: Similarity = Spearman()  # noqa: RUF009 - it is frozen

    def __post_init__(self) -> None:
        require(
            callable(self.similarity) and not isinstance(self.similarity, type),
            "expected similarity to be a function of two maps or an object such as Spearman(), got "
            f"{self.similarity!r}",
        )

    def _alike(self, first: Tensor, second: Tensor) -> Tensor:
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

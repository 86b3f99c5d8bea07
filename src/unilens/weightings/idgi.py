"""IDGI: the change of the score, distributed by squared gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import expand_like, to_float64
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card
from .base import Factors, Weighting, score_changes, weightings


@dataclass(frozen=True)
class ImportantDirection(Weighting):
    """Distribute the change of the score in each step over the features by squared gradients.

    A_i = sum_k (f(x_{k+1}) - f(x_k)) g_i^2 / |g|^2, with g the gradient at x_k: displacement
    orthogonal to the gradient is noise and gets nothing. It is complete for any number of steps,
    except where a gradient is zero. The published form uses the left rule; with another rule, the
    change of a node is that up to the next node, and for the first node from the baseline on.

    References:
        Yang, Wang, Bilgic, "IDGI: A Framework to Eliminate Explanation Noise from Integrated
        Gradients", CVPR 2023, arXiv 2303.14242, algorithm 1.
    """

    nested = True
    shares_changes = True

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield gradients, and gradients scaled to the change; see `Weighting`."""
        for gradient, _, change in score_changes(chunks, start, end):
            yield gradient, _scaled(gradient, change)


def _scaled(gradient: Tensor, change: Tensor) -> Tensor:
    """Return the gradient scaled so that its inner product with the gradient is the change."""
    square = to_float64(gradient).flatten(1).square().sum(1)
    return gradient * expand_like(torch.where(square > 0, change / square, 0.0), gradient)


weightings.add(
    Card(
        "idgi",
        "important direction",
        "the change of the score, distributed by squared gradients (IDGI)",
        "Yang et al. 2023, arXiv 2303.14242",
    ),
    ImportantDirection,
)

"""IDG: gradients weighted by the slope of the score along the path."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import expand_like, to_float64
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card
from .base import Factors, Weighting, weightings


@dataclass(frozen=True)
class DecisionGradients(Weighting):
    """Weight a gradient by the slope of the score along the path at its node.

    A_i = int df/dx_i (dx_i/dt) (df/dt) dt, in squared units of the score: gradients have little
    weight where the score has saturated. It is not complete. On a straight path the steps are
    placed where the score changes, for every rule: the path is split into n_steps equal intervals,
    and each gets steps in proportion to its slope minus the smallest slope. In the authors' public
    code an interval without steps shifts all later ones towards the baseline; here it does not.

    Args:
        adaptive: whether to place the steps, at the cost of n_steps - 1 more forward passes.

    References:
        Walker, Jha, Chen, Ewetz, "Integrated Decision Gradients: Compute Your Attributions Where
        the Model Makes Its Decision", AAAI 2024, arXiv 2305.20052.
    """

    nested = True

    adaptive: bool = True

    @property
    def complete(self) -> bool:
        """False: the values are in squared units of the score."""
        return False

    @property
    def places_nodes(self) -> bool:
        """Whether the steps are placed where the score changes."""
        return self.adaptive

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield gradients, and displacements times slopes; see `Weighting`."""
        lengths = iter(quadrature.weights.to(start.dtype).to(start.device))
        for chunk in chunks:
            gradients = chunk.evaluation.gradients
            displacements = chunk.displacement.expand_as(gradients)
            for gradient, displacement in zip(gradients, displacements, strict=True):
                change = to_float64(gradient * displacement).flatten(1).sum(1)
                slope = change / to_float64(next(lengths)).clamp_min(1e-12)
                yield gradient, displacement * expand_like(slope, displacement)

    def place(self, scores: Tensor) -> Quadrature:
        """Return nodes and weights `(n, B)` that follow the slopes of scores `(n + 1, B)`."""
        intervals = len(scores) - 1
        slopes = to_float64(scores).diff(dim=0)
        above = slopes - slopes.amin(0)
        total = above.sum(0)
        shares = torch.where(total > 0, above / total, 1 / intervals) * intervals
        counts = _rounded(shares.T.cpu())
        rules = [_subdivided(row, intervals) for row in counts]
        nodes, weights = (torch.stack(column, dim=1) for column in zip(*rules, strict=True))
        return Quadrature(nodes, weights)


def _rounded(shares: Tensor) -> Tensor:
    """Round shares `(B, n)` that sum to n to whole numbers that sum to n."""
    counts = shares.floor()
    missing = (shares.shape[1] - counts.sum(1)).round().long()
    order = (counts - shares).argsort(dim=1, stable=True)
    for row, (first, count) in enumerate(zip(order, missing.tolist(), strict=True)):
        counts[row, first[:count]] += 1
    return counts.long()


def _subdivided(counts: Tensor, intervals: int) -> tuple[Tensor, Tensor]:
    """Split each interval equally; return the left ends and the lengths of the subintervals."""
    lengths = (1 / counts.double() / intervals).repeat_interleave(counts)
    starts = (torch.arange(intervals, dtype=torch.float64) / intervals).repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return starts + (torch.arange(len(lengths)) - first) * lengths, lengths


weightings.add(
    Card(
        "idg",
        "decision",
        "gradients weighted by the slope of the score along the path (IDG)",
        "Walker et al. 2024, arXiv 2305.20052",
    ),
    DecisionGradients,
)

"""Guided IG: at each step, the features with the smallest gradients change first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy
import torch
from torch import Tensor

from .._engine.score_gradient import ScoreGradient
from .._ops.precision import l1_norm, to_float64
from .._validation.settings import Share, UnitInterval
from ..baselines.base import BaselineResult
from ..quadrature import Quadrature
from ..registry import Card
from .base import Path, PathChunk, edges, paths


@dataclass(frozen=True)
class GuidedPath(Path):
    """The path near a straight line on which features with small gradients change first.

    At each step the l1 distance to the input falls by the step's share. The features with the
    smallest gradients in magnitude move, a `fraction` of all features at a time, each to at most
    `max_distance` ahead of the straight line; features as far behind the line catch up first.
    The gradient is taken at the start of a step for every rule: only the rule's weights matter.

    Args:
        fraction: share of the features that move together, in (0, 1].
        max_distance: the largest distance of a feature ahead of or behind the straight line, as a
            share of its whole displacement; 0 is the straight line, 1 the unanchored form.

    References:
        Kapishnikov et al., "Guided Integrated Gradients: an Adaptive Path Method for Removing
        Noise", CVPR 2021, arXiv 2106.09788, algorithm 1 and section 3.3. The defaults are those of
        the authors' public code.
    """

    fraction: Share = 0.25
    max_distance: UnitInterval = 0.02

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks from start to end; see `Path`."""
        direction = end - start.values
        total = l1_norm(direction.detach())
        point = start.values
        for begins, ends in pairwise(edges(quadrature).tolist()):
            evaluation = gradient(point.unsqueeze(0))
            ahead = start.values + min(ends + self.max_distance, 1.0) * direction
            behind = start.values + max(ends - self.max_distance, 0.0) * direction
            late = (end - point).abs() > (end - behind).abs()
            following = self._move(
                torch.where(late, behind, point),
                ahead if ends + self.max_distance < 1 else end,
                end,
                total * (1 - ends),
                evaluation.gradients[0].detach().abs(),
            )
            yield PathChunk(
                torch.tensor([begins], dtype=torch.float32),
                point.unsqueeze(0),
                evaluation,
                (following - point).unsqueeze(0),
            )
            point = following

    def _move(
        self, point: Tensor, ahead: Tensor, end: Tensor, remaining: Tensor, rank: Tensor
    ) -> Tensor:
        """Move features towards `ahead`, lowest ranks first, to an l1 distance to `end`.

        Features move in blocks, all features of a block by the same share of their reach.

        Args:
            point: `(B, *S)`.
            ahead: `(B, *S)`, the farthest position of each feature.
            end: `(B, *S)`.
            remaining: `(B,)`, the l1 distance to the end after the move.
            rank: `(B, *S)`, gradients in magnitude.
        """
        reach = ahead - point
        order = torch.where(reach == 0, torch.inf, rank).flatten(1).contiguous()
        together = int(self.fraction * (order.shape[1] - 1)) + 1
        block = torch.searchsorted(_last_of_blocks(order, together), order)
        length = to_float64(reach.detach().abs().flatten(1))
        in_block = length.new_zeros(len(point), int(block.max()) + 1).scatter_add_(1, block, length)
        left = (end - point).detach()
        rounding = 4 * torch.finfo(left.dtype).eps * left.abs().flatten(1).amax(1)
        missing = l1_norm(left) - remaining
        missing = torch.where(missing > rounding, missing, 0.0).unsqueeze(1)
        share = (missing - in_block.cumsum(1) + in_block) / in_block
        share = torch.where(in_block > 0, share.clamp(0, 1), 0.0).to(point.dtype)
        step = share.gather(1, block).view(point.shape)
        return torch.where(step == 1, ahead, point + step * reach)


def _last_of_blocks(order: Tensor, together: int) -> Tensor:
    """Return the largest value of each block `(B, blocks)` of `together` values and their ties.

    Infinite values belong to no block; the last entry is infinity.
    """
    ranks = _sorted(order)
    last: list[Tensor] = []
    taken = torch.zeros(len(order), 1, dtype=torch.long, device=order.device)
    while not last or bool(last[-1].isfinite().any()):
        largest = ranks.gather(1, (taken + together - 1).clamp_max(order.shape[1] - 1))
        last.append(torch.where(taken + together > order.shape[1], torch.inf, largest))
        taken = torch.searchsorted(ranks, last[-1], right=True)
    return torch.cat(last, dim=1)


def _sorted(values: Tensor) -> Tensor:
    """Return the values `(B, n)` in ascending order; numpy's sort is by far the fastest on CPUs."""
    if values.device.type == "cpu":
        return torch.from_numpy(numpy.sort(values.numpy(), axis=1))
    return values.sort(1).values


paths.add(
    Card(
        "guided",
        "guided",
        "features with small gradients first, near the straight line (Guided IG)",
        "Kapishnikov et al. 2021, arXiv 2106.09788",
        higher_precision=True,
    ),
    GuidedPath,
)

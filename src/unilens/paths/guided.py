"""Guided IG: at every step, the features with the smallest gradients go first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from ..baselines.base import Found
from ..errors import require
from ..gradients import ScoreGradient
from ..numerics import per_item, wide
from ..quadrature import Quadrature
from ..registry import Card
from .base import Leg, edges, paths


@dataclass(frozen=True)
class GuidedPath:
    """Walk so that features with small gradients change first, near a straight line.

    At each step the l1 distance to the input falls by the step's share. The features whose
    gradients are smallest in magnitude move, a `fraction` of all of them at a time, each as far as
    `max_distance` ahead of the straight line; those that fell as far behind it catch up first.
    The gradient is taken where a step begins, whatever the rule: of a rule, only the weights count.

    Args:
        fraction: share of the features that move together, in (0, 1].
        max_distance: how far a feature may be ahead of or behind the straight line, as a share of
            its own way; 0 is the straight line, 1 the unanchored form.

    References:
        Kapishnikov et al., "Guided Integrated Gradients: an Adaptive Path Method for Removing
        Noise", CVPR 2021, arXiv 2106.09788, algorithm 1 and section 3.3. The defaults are those of
        the authors' public code.
    """

    fraction: float = 0.25
    max_distance: float = 0.02

    def __post_init__(self) -> None:
        for name, lowest in (("fraction", "above 0"), ("max_distance", "at least 0")):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            inside = number and (0 < value <= 1 or (value == 0 and lowest == "at least 0"))
            require(inside, f"expected {name} to be {lowest} and at most 1, got {value!r}")

    def __call__(
        self, gradient: ScoreGradient, start: Found, end: Tensor, quadrature: Quadrature
    ) -> Iterator[Leg]:
        """Yield the legs from start to end; see `Path`."""
        direction = end - start.values
        total = _l1(direction)
        here = start.values
        for begins, ends in pairwise(edges(quadrature).tolist()):
            evaluation = gradient(here.unsqueeze(0))
            ahead = start.values + min(ends + self.max_distance, 1.0) * direction
            behind = start.values + max(ends - self.max_distance, 0.0) * direction
            late = (end - here).abs() > (end - behind).abs()
            there = self._move(
                torch.where(late, behind, here),
                ahead if ends + self.max_distance < 1 else end,
                end,
                total * (1 - ends),
                evaluation.gradients[0].detach().abs(),
            )
            yield Leg(
                torch.tensor([begins]),
                here.unsqueeze(0),
                evaluation,
                (there - here).unsqueeze(0),
            )
            here = there

    def _move(
        self, here: Tensor, ahead: Tensor, end: Tensor, wanted: Tensor, rank: Tensor
    ) -> Tensor:
        """Move features up to `ahead`, the lowest ranks first, until the l1 distance is as wanted.

        Args:
            here: `(B, *S)`.
            ahead: `(B, *S)`, how far each may go.
            end: `(B, *S)`.
            wanted: `(B,)`, the l1 distance to the end that is to be left.
            rank: `(B, *S)`, gradients in magnitude.
        """
        together = int(self.fraction * (rank[0].numel() - 1)) + 1
        tolerance = 4 * torch.finfo(here.dtype).eps * wide(end - here).abs().flatten(1).amax(1)
        moved = here
        rows = torch.arange(len(here), device=here.device)
        while len(rows):
            now, goal = moved[rows], ahead[rows]
            order = torch.where(now == goal, torch.inf, rank[rows])
            missing = _l1(end[rows] - now) - wanted[rows]
            last = order.flatten(1).kthvalue(together, dim=1).values
            chosen = (order <= per_item(last, order)) & order.isfinite()
            reach = torch.where(chosen, goal - now, 0.0)
            share = missing / _l1(reach)
            part = now + per_item(share.clamp(0, 1), now) * reach
            step = torch.where(chosen & per_item(share >= 1, now).bool(), goal, part)
            open_ = (missing > tolerance[rows]) & chosen.flatten(1).any(1)
            moved = moved.index_put((rows,), torch.where(per_item(open_, now).bool(), step, now))
            rows = rows[open_ & (share > 1)]
        return moved


def _l1(values: Tensor) -> Tensor:
    return wide(values.detach()).abs().flatten(1).sum(1)


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

"""Weightings: how much the gradient at each step of a path counts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .numerics import per_item, wide
from .paths import Leg
from .quadrature import Quadrature
from .registry import Card, Registry
from .settings import check_switch

_LEG_OF_IMAGES = 5
"""Dimensions of the points `(n, B, C, H, W)` of a leg."""


class Weighting(Protocol):
    """From the legs of a path to what is added up.

    Optional: `complete`, whether that is the change of the score in theory; true by default.
    """

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield two factors `(B, *S)` per step; the attribution is the sum of their products.

        Args:
            legs: of the path, in order from the baseline.
            quadrature: whose weights are the lengths of the steps, in fractions of the path.
            start: `(B,)`, the score at the baseline.
            end: `(B,)`, the score at the input.
        """


@dataclass(frozen=True)
class Riemann:
    """Multiply the gradient by how far the path goes: the integral along the path."""

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield gradients and displacements; see `Weighting`."""
        for leg in legs:
            gradients = leg.evaluation.gradients
            yield from zip(gradients, leg.displacement.expand_as(gradients), strict=True)


@dataclass(frozen=True)
class ImportantDirection:
    """Share the change of the score in a step among the features by their squared gradients.

    A_i = sum_k (f(x_{k+1}) - f(x_k)) g_i^2 / |g|^2, g the gradient at x_k: what moves across the
    gradient is noise and gets nothing. Complete at every number of steps, except where a gradient
    is zero. The published form is that of the left rule; with another, a node stands for what
    changes until the next, the first for all before it as well.

    References:
        Yang, Wang, Bilgic, "IDGI: A Framework to Eliminate Explanation Noise from Integrated
        Gradients", CVPR 2023, arXiv 2303.14242, algorithm 1.
    """

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield gradients, and gradients scaled to the change; see `Weighting`."""
        for gradient, _, change in _changes(legs, start, end):
            yield gradient, _scaled(gradient, change)


@dataclass(frozen=True)
class Gains:
    """Share the change of the score in a step among the features that brought it.

    A_i = sum_k D_k s_i / sum_j s_j, D_k the change of the score in step k, and
    s_i = |g_i| max(0, sign(D_k) g_i d_i), g the gradient at the node and d how far the path goes in
    the step. As in IDGI the changes add up exactly and large gradients count most; but what does
    not move gets nothing, and neither does what pulled the other way. In a step to which nothing
    contributed in its direction, IDGI's squares are left. Where the score rises all the way no
    value is negative: the map says who brought the confidence, not who spoke against it. Nodes
    stand for what changes until the next one, the first for all before it as well.

    References:
        Ours (docs/beyond.md), after Yang et al. 2023, arXiv 2303.14242.
    """

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shares, and what scales them to the change; see `Weighting`."""
        for gradient, displacement, change in _changes(legs, start, end):
            gain = gradient * displacement * per_item(change.sign(), gradient)
            share = gain.clamp_min(0) * gradient.abs()
            nothing = per_item((share.flatten(1).amax(1) == 0).to(share.dtype), share)
            share = share + nothing * gradient.square()
            total = wide(share).flatten(1).sum(1)
            scale = torch.where(total > 0, change / total, 0.0)
            yield share, per_item(scale, share).expand_as(share)


@dataclass(frozen=True)
class GainsOfImages:
    """Share gains among the pixels of images, and integrate everywhere else.

    In images `(C, H, W)` what counts is where, and the signs of single pixels cancel each other; in
    a table, a text or a signal every value stands for itself and its sign is what is asked for.
    """

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what `Gains` or `Riemann` does; see `Weighting`."""
        legs = iter(legs)
        first = next(legs)
        images = first.points.ndim == _LEG_OF_IMAGES
        chosen = Gains() if images else Riemann()
        yield from chosen(itertools.chain([first], legs), quadrature, start, end)


@dataclass(frozen=True)
class DecisionGradients:
    """Count a gradient by how fast the score changes along the path where it is taken.

    A_i = int df/dx_i (dx_i/dt) (df/dt) dt, in squared units of the score: gradients on stretches
    where the score has saturated count little. Not complete. On a straight path the steps are
    placed where the score changes, whatever the rule: as many intervals as steps are tried, and
    each gets steps in proportion to its slope less the smallest slope. In the authors' public code
    an interval without steps moves all later ones towards the baseline; here it does not.

    Args:
        adaptive: whether to place the steps, for n_steps - 1 forward passes more.

    References:
        Walker, Jha, Chen, Ewetz, "Integrated Decision Gradients: Compute Your Attributions Where
        the Model Makes Its Decision", AAAI 2024, arXiv 2305.20052.
    """

    adaptive: bool = True

    complete: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_switch("adaptive", self.adaptive)

    def __call__(
        self, legs: Iterable[Leg], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield gradients, and displacements times slopes; see `Weighting`."""
        lengths = iter(quadrature.weights.to(start.dtype).to(start.device))
        for leg in legs:
            gradients = leg.evaluation.gradients
            displacements = leg.displacement.expand_as(gradients)
            for gradient, displacement in zip(gradients, displacements, strict=True):
                change = wide(gradient * displacement).flatten(1).sum(1)
                slope = change / wide(next(lengths)).clamp_min(1e-12)
                yield gradient, displacement * per_item(slope, displacement)

    def place(self, scores: Tensor) -> Quadrature:
        """Return nodes and weights `(n, B)` that follow the slopes of scores `(n + 1, B)`."""
        intervals = len(scores) - 1
        slopes = wide(scores).diff(dim=0)
        above = slopes - slopes.amin(0)
        total = above.sum(0)
        shares = torch.where(total > 0, above / total, 1 / intervals) * intervals
        counts = _rounded(shares.T.cpu())
        each = [_within(one, intervals) for one in counts]
        nodes, weights = (torch.stack(column, dim=1) for column in zip(*each, strict=True))
        return Quadrature(nodes, weights)


def _rounded(shares: Tensor) -> Tensor:
    """Return whole numbers `(B, n)` nearest to shares that add up to n, adding up to n as well."""
    counts = shares.floor()
    missing = (shares.shape[1] - counts.sum(1)).round().long()
    order = (counts - shares).argsort(dim=1, stable=True)
    for row, (first, count) in enumerate(zip(order, missing.tolist(), strict=True)):
        counts[row, first[:count]] += 1
    return counts.long()


def _within(counts: Tensor, intervals: int) -> tuple[Tensor, Tensor]:
    """Return nodes, the left ends of equal parts of each interval, and the parts' lengths."""
    lengths = (1 / counts.double() / intervals).repeat_interleave(counts)
    starts = (torch.arange(intervals, dtype=torch.float64) / intervals).repeat_interleave(counts)
    first = (counts.cumsum(0) - counts).repeat_interleave(counts)
    return starts + (torch.arange(len(lengths)) - first) * lengths, lengths


def _changes(
    legs: Iterable[Leg], start: Tensor, end: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield each node's gradient and displacement `(B, *S)`, and the change it stands for `(B,)`.

    That is the change until the next node; the first stands for all before it as well.
    """
    node: tuple[Tensor, Tensor] | None = None
    before = start
    for leg in legs:
        gradients, values = leg.evaluation.gradients, leg.evaluation.values
        displacements = leg.displacement.expand_as(gradients)
        for gradient, displacement, score in zip(gradients, displacements, values, strict=True):
            if node is not None:
                yield *node, score - before
                before = score
            node = gradient, displacement
    if node is not None:
        yield *node, end - before


def _scaled(gradient: Tensor, change: Tensor) -> Tensor:
    """Return the gradient, scaled so that its product with the gradient is the change."""
    square = wide(gradient).flatten(1).square().sum(1)
    return gradient * per_item(torch.where(square > 0, change / square, 0.0), gradient)


weightings: Registry[Weighting] = Registry("weighting")
weightings.add(
    Card(
        "riemann",
        "integral",
        "gradient times displacement",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    Riemann,
)
weightings.add(
    Card(
        "idgi",
        "important direction",
        "the change of the score, shared by squared gradients (IDGI)",
        "Yang et al. 2023, arXiv 2303.14242",
    ),
    ImportantDirection,
)
weightings.add(
    Card(
        "gains",
        "important direction",
        "the change of the score, shared by who brought it",
        "unilens, after Yang et al. 2023, arXiv 2303.14242",
    ),
    Gains,
)
weightings.add(
    Card(
        "gains_of_images",
        "important direction",
        "gains for images, riemann for all else",
        "unilens, after Yang et al. 2023, arXiv 2303.14242",
    ),
    GainsOfImages,
)
weightings.add(
    Card(
        "idg",
        "decision",
        "gradients count where the score changes (IDG)",
        "Walker et al. 2024, arXiv 2305.20052",
    ),
    DecisionGradients,
)

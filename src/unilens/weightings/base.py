"""Weightings: how much the gradient at each step of a path counts."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._ops.precision import expand_like, to_float64
from .._ops.spatial import has_regions
from .._validation.settings import Settings, check_number, check_switch
from ..baselines.blur import blurred
from ..errors import require
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card, Registry


class Weighting(Protocol):
    """From the chunks of a path to what is added up.

    Optional: `complete`, whether that is the change of the score in theory; true by default;
    `for_model(model)`, the weighting for a model, where it depends on the parts of its inputs.
    """

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield two factors `(B, *S)` per step; the attribution is the sum of their products.

        Args:
            chunks: of the path, in order from the baseline.
            quadrature: whose weights are the lengths of the steps, in fractions of the path.
            start: `(B,)`, the score at the baseline.
            end: `(B,)`, the score at the input.
        """


@dataclass(frozen=True)
class Riemann:
    """Multiply the gradient by how far the path goes: the integral along the path."""

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield gradients and displacements; see `Weighting`."""
        for chunk in chunks:
            gradients = chunk.evaluation.gradients
            yield from zip(gradients, chunk.displacement.expand_as(gradients), strict=True)


@dataclass(frozen=True)
class ImportantDirection(Settings):
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
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield gradients, and gradients scaled to the change; see `Weighting`."""
        for gradient, _, change in _changes(chunks, start, end):
            yield gradient, _scaled(gradient, change)


@dataclass(frozen=True)
class Gains(Settings):
    """Say where by the integral over neighbourhoods, and which pixels by who brought the change.

    The signs of neighbouring pixels cancel each other, so that a region is told by sums; within it,
    single pixels are told by their gains. With s = g d, gradient times displacement of step k, D_k
    the change of the score, u_i = max(0, sign(D_k) s_i), K the gaussian average over a
    neighbourhood and c the coarse share,

        A_i = sum_k c (K s)_i + (D_k - c sum_j s_j) u_i / sum_j u_j

    It is complete at every number of steps, except where nothing has a gain. Nodes stand for what
    changes until the next one, the first for all before it as well. Where there are no
    neighbourhoods, in all inputs and parts but images `(C, H, W)` and volumes or clips
    `(C, D, H, W)`, every value stands for itself: it gets its integral, as by `Riemann`, and images
    share what is left.

    Args:
        coarse: c, the share of the integral over neighbourhoods, from 0 to 1.
        neighbourhood: standard deviation of the average, as a share of the longer side.

    References:
        Ours (docs/beyond.md). That each step shares out the change of the score is as in Yang et
        al. 2023, arXiv 2303.14242.
    """

    reads_axes_from: ClassVar[int] = 4
    coarse: float = 0.4
    neighbourhood: float = 0.09

    def __post_init__(self) -> None:
        check_number("coarse", self.coarse, least=0)
        require(self.coarse <= 1, f"expected coarse to be at most 1, got {self.coarse!r}")
        check_number("neighbourhood", self.neighbourhood, above=0)

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shares, and what scales them to the change; see `Weighting`."""
        yield from self._weigh(None, chunks, quadrature, start, end)

    def for_model(self, model: Evaluator) -> Weighting:
        """Return the weighting for a model, which knows what parts its inputs have."""
        return functools.partial(self._weigh, model)

    def _weigh(
        self,
        model: Evaluator | None,
        chunks: Iterable[PathChunk],
        quadrature: Quadrature,
        start: Tensor,
        end: Tensor,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        chunks = iter(chunks)
        first = next(chunks)
        chunks = itertools.chain([first], chunks)
        of_images = map_inputs(
            model, lambda part: torch.full_like(part, has_regions(part)), first.points[0].detach()
        )
        if not of_images.any():
            yield from Riemann()(chunks, quadrature, start, end)
            return
        integral = torch.zeros_like(of_images)
        waiting: tuple[Tensor, Tensor] | None = None
        for gradient, displacement, change in _changes(chunks, start, end):
            if waiting is not None:
                yield waiting
            part = gradient * displacement
            integral = integral + part
            gain = (part * of_images * expand_like(change.sign(), part)).clamp_min(0)
            total = to_float64(gain).flatten(1).sum(1)
            told = part * (of_images * self.coarse + (1 - of_images))
            left = change - to_float64(told).flatten(1).sum(1)
            scale = torch.where(total > 0, left / total, 0.0)
            waiting = gain, expand_like(scale, gain).expand_as(gain)
        assert waiting is not None
        gain, scale = waiting
        regions = map_inputs(model, self._averaged, integral)
        yield regions + gain * scale, torch.ones_like(gain)

    def _averaged(self, values: Tensor) -> Tensor:
        """Return the coarse share of images or volumes, averaged; all of anything else."""
        if not has_regions(values):
            return values
        sigma = self.neighbourhood * max(values.shape[2:])
        return self.coarse * blurred(values, sigma, "reflect")


@dataclass(frozen=True)
class DecisionGradients(Settings):
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
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
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
    chunks: Iterable[PathChunk], start: Tensor, end: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield each node's gradient and displacement `(B, *S)`, and the change it stands for `(B,)`.

    That is the change until the next node; the first stands for all before it as well.
    """
    node: tuple[Tensor, Tensor] | None = None
    before = start
    for chunk in chunks:
        gradients, values = chunk.evaluation.gradients, chunk.evaluation.values
        displacements = chunk.displacement.expand_as(gradients)
        for gradient, displacement, score in zip(gradients, displacements, values, strict=True):
            if node is not None:
                yield *node, score - before
                before = score
            node = gradient, displacement
    if node is not None:
        yield *node, end - before


def _scaled(gradient: Tensor, change: Tensor) -> Tensor:
    """Return the gradient, scaled so that its product with the gradient is the change."""
    square = to_float64(gradient).flatten(1).square().sum(1)
    return gradient * expand_like(torch.where(square > 0, change / square, 0.0), gradient)


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
        "regions by the integral, pixels by who brought the change",
        "unilens, after Yang et al. 2023, arXiv 2303.14242",
    ),
    Gains,
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

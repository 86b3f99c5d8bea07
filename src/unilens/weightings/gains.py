"""Gains: which regions by a smoothed integral, which pixels by the change of the score per step."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._ops.precision import expand_like, to_float64
from .._ops.spatial import has_regions
from .._validation.settings import NonNegative, Positive
from ..baselines.blur import blurred
from ..errors import require
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card
from .base import Factors, FunctionWeighting, Riemann, Weighting, score_changes, weightings


@dataclass(frozen=True)
class Gains(Weighting):
    """Combine a smoothed integral (which regions) with per-step score changes (which pixels).

    The signs of neighbouring pixels cancel, so that sums show regions; within a region, gains show
    single pixels. With s = g d, gradient times displacement of step k, D_k
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

    coarse: NonNegative = 0.4
    neighbourhood: Positive = 0.09

    def __post_init__(self) -> None:
        require(self.coarse <= 1, f"expected coarse to be at most 1, got {self.coarse!r}")

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield shares, and what scales them to the change; see `Weighting`."""
        yield from self._weigh(None, chunks, quadrature, start, end)

    @property
    def reads_axes_from(self) -> int | None:
        """4: images have neighbourhoods."""
        return 4

    def for_model(self, model: Evaluator) -> Weighting:
        """Return the weighting for a model, which knows its several inputs."""
        return FunctionWeighting(functools.partial(self._weigh, model))

    def _weigh(
        self,
        model: Evaluator | None,
        chunks: Iterable[PathChunk],
        quadrature: Quadrature,
        start: Tensor,
        end: Tensor,
    ) -> Factors:
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
        for gradient, displacement, change in score_changes(chunks, start, end):
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


weightings.add(
    Card(
        "gains",
        "important direction",
        "regions by a smoothed integral, pixels by score changes per step",
        "unilens, after Yang et al. 2023, arXiv 2303.14242",
    ),
    Gains,
)

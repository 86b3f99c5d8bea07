"""Gains: regions by a smoothed integral, pixels by the change of the score in each step."""

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
from .._validation.settings import NonNegative, Positive
from ..baselines.blur import blurred
from ..errors import require
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card
from .base import Factors, FunctionWeighting, Riemann, Weighting, score_changes, weightings

_IMAGES = 4
"""The dimensions of images `(B, C, H, W)`."""


@dataclass(frozen=True)
class Gains(Weighting):
    """Combine a smoothed integral (which regions) with per-step score changes (which pixels).

    The signs of neighbouring pixels cancel in sums, which show regions; gains show single pixels
    within a region. With s = g d the gradient times the displacement of step k, D_k the change of
    the score, u_i = max(0, sign(D_k) s_i), K the gaussian average over a neighbourhood and c the
    coarse share,

        A_i = sum_k c (K s)_i + (D_k - c sum_j s_j) u_i / sum_j u_j

    It is complete for any number of steps, except where no value has a gain. The change of a node
    is that up to the next node; for the first node, from the baseline on. Only images `(C, H, W)`
    have neighbourhoods; the values of other inputs get their integrals, as in `Riemann`, and images
    among several inputs share the rest of the change. Volumes and clips are such others: in three
    dimensions most of an average lies outside of a region (docs/volumes.md).

    Args:
        coarse: c, the share of the integral over neighbourhoods, from 0 to 1.
        neighbourhood: standard deviation of the average, as a share of the longest side.

    References:
        unilens (docs/beyond.md). Yang et al. 2023, arXiv 2303.14242, also distribute the change of
        the score in each step.
    """

    nested = True
    shares_changes = True

    coarse: NonNegative = 0.4
    neighbourhood: Positive = 0.09

    def __post_init__(self) -> None:
        require(self.coarse <= 1, f"expected coarse to be at most 1, got {self.coarse!r}")

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield gains, and the factors that scale them to the change; see `Weighting`."""
        yield from self._weigh(None, chunks, quadrature, start, end)

    @property
    def reads_axes_from(self) -> int | None:
        """4: only images have neighbourhoods."""
        return 4

    def for_model(self, model: Evaluator) -> Weighting:
        """Return the weighting for a model, which finds the images among its named inputs."""
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
        is_image = map_inputs(
            model,
            lambda values: torch.full_like(values, values.ndim == _IMAGES),
            first.points[0].detach(),
        )
        if not is_image.any():
            yield from Riemann()(chunks, quadrature, start, end)
            return
        integral = torch.zeros_like(is_image)
        pending: tuple[Tensor, Tensor] | None = None
        for gradient, displacement, change in score_changes(chunks, start, end):
            if pending is not None:
                yield pending
            term = gradient * displacement
            integral = integral + term
            gain = (term * is_image * expand_like(change.sign(), term)).clamp_min(0)
            total = to_float64(gain).flatten(1).sum(1)
            integrated = term * (is_image * self.coarse + (1 - is_image))
            remaining = change - to_float64(integrated).flatten(1).sum(1)
            scale = torch.where(total > 0, remaining / total, 0.0)
            pending = gain, expand_like(scale, gain).expand_as(gain)
        assert pending is not None
        gain, scale = pending
        regions = map_inputs(model, self._averaged, integral)
        yield regions + gain * scale, torch.ones_like(gain)

    def _averaged(self, values: Tensor) -> Tensor:
        """Return the averaged coarse share of images; other values as they are."""
        if values.ndim != _IMAGES:
            return values
        sigma = self.neighbourhood * max(values.shape[2:])
        return self.coarse * blurred(values, sigma, "reflect")


weightings.add(
    Card(
        "gains",
        "important direction",
        "regions by a smoothed integral, pixels by the change of the score in each step",
        "unilens, after Yang et al. 2023, arXiv 2303.14242",
    ),
    Gains,
)

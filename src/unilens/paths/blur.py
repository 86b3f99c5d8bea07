"""BlurIG: the path from a blurred image to the image, with decreasing blur."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._engine.score_gradient import ScoreGradient
from .._validation.settings import Positive
from ..baselines.base import BaselineResult
from ..baselines.blur import Along, Blur, Boundary, check_axes, gaussian_blur
from ..quadrature import Quadrature
from ..registry import Card
from .base import Curve, Path, PathChunk, edges, paths


@dataclass(frozen=True)
class BlurPath(Path):
    """The path of gaussian blurs of the input, with sigma from `max_sigma` to 0.

    gamma(t) = blur(x, sigma(t)), with sigma = max_sigma (1 - t), or max_sigma sqrt(1 - t), for
    which the variance of the gaussian falls linearly. The baseline is blur(x, max_sigma).

    Args:
        max_sigma: standard deviation of the gaussian at the start, in pixels.
        boundary: the values outside the image: "replicate", "reflect" or "zero". "zero", the choice
            of the authors' public code, darkens the margins.
        schedule: "linear" or "sqrt", the fall of sigma.
        velocity: "chord" multiplies a gradient by the difference of the blurs at both ends of its
            step; "derivative" by the derivative in sigma at the node, which the authors' public
            code approximates by a finite difference, and is far from complete at few steps.
        along: the axes that are blurred: "all", or of clips "time" or "space"; see
            `unilens.baselines.Blur`.

    References:
        Xu, Venugopalan, Sundararajan, "Attribution in Scale and Space", CVPR 2020,
        arXiv 2004.03383.
    """

    reads_axes_from: ClassVar[int] = 3
    max_sigma: Positive = 50.0
    boundary: Boundary = "replicate"
    schedule: Literal["linear", "sqrt"] = "linear"
    velocity: Literal["chord", "derivative"] = "chord"
    along: Along = "all"

    @property
    def baseline(self) -> Blur:
        """The only baseline from which the path starts."""
        return Blur(self.max_sigma, self.boundary, self.along)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs do not have the axes to blur along."""
        map_inputs(model, lambda values: check_axes(values, self.along), inputs)

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the blurs of the end; see `Path`."""
        return lambda fraction: self._blurred(model, end, self._sigma(fraction))

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks from start to end; see `Path`."""
        if self.velocity == "chord":
            yield from super().__call__(gradient, start, end, quadrature)
            return
        steps = self._sigma(edges(quadrature)).diff()
        for fraction, step in gradient.blocks(end, quadrature.nodes, steps):
            sigma = self._sigma(fraction.flatten())
            points = self._blurred(gradient.evaluator, end, sigma)
            slope = self._blurred(gradient.evaluator, end, sigma, slope=True)
            yield PathChunk(fraction.flatten(), points, gradient(points), step * slope)

    def _blurred(self, model: Evaluator, end: Tensor, sigma: Tensor, slope: bool = False) -> Tensor:
        return map_inputs(
            model,
            lambda values: gaussian_blur(values, sigma, self.boundary, self.along, slope),
            end,
        )

    def _sigma(self, fraction: Tensor) -> Tensor:
        remaining = (1 - fraction.detach().cpu().double()).clamp_min(0)
        return self.max_sigma * (remaining if self.schedule == "linear" else remaining.sqrt())


paths.add(
    Card(
        "blur", "blur", "decreasing blur of the input (BlurIG)", "Xu et al. 2020, arXiv 2004.03383"
    ),
    BlurPath,
)

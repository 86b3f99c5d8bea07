"""BlurIG: from a blurred image to the sharp one, by less and less blur."""

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
from ..baselines.blur import Blur, Boundary, checked_space, gaussian_blur
from ..quadrature import Quadrature
from ..registry import Card
from .base import Curve, Path, PathChunk, edges, paths


@dataclass(frozen=True)
class BlurPath(Path):
    """Walk along the gaussian blurs of the input, sigma from `max_sigma` to 0.

    gamma(t) = blur(x, sigma(t)), sigma = max_sigma (1 - t), or max_sigma sqrt(1 - t), at which the
    variance of the gaussian falls linearly. The path has its own baseline, blur(x, max_sigma).

    Args:
        max_sigma: standard deviation of the gaussian at the start, in pixels.
        boundary: what lies outside of the image: "replicate", "reflect" or "zero". The last, which
            the authors' public code takes, darkens the margins.
        schedule: "linear" or "sqrt", how sigma falls.
        velocity: "chord" multiplies a gradient by the difference of the blurs at both ends of its
            step; "derivative" by the derivative in sigma at the node, as the authors' public code
            does (by a finite difference), and is far from complete at few steps.

    References:
        Xu, Venugopalan, Sundararajan, "Attribution in Scale and Space", CVPR 2020,
        arXiv 2004.03383.
    """

    reads_axes_from: ClassVar[int] = 3
    max_sigma: Positive = 50.0
    boundary: Boundary = "replicate"
    schedule: Literal["linear", "sqrt"] = "linear"
    velocity: Literal["chord", "derivative"] = "chord"

    @property
    def baseline(self) -> Blur:
        """The only baseline that the path starts from."""
        return Blur(self.max_sigma, self.boundary)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs have no dimension of space."""
        map_inputs(model, checked_space, inputs)

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the blurs of the end; see `Path`."""
        return lambda at: self._blurred(model, end, self._sigma(at))

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
            lambda part: gaussian_blur(part, sigma, self.boundary, slope=slope),
            end,
        )

    def _sigma(self, fraction: Tensor) -> Tensor:
        left = (1 - fraction.detach().cpu().double()).clamp_min(0)
        return self.max_sigma * (left if self.schedule == "linear" else left.sqrt())


paths.add(
    Card("blur", "blur", "by less and less blur (BlurIG)", "Xu et al. 2020, arXiv 2004.03383"),
    BlurPath,
)

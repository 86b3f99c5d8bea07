"""The base class of paths, and the registry of paths."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation, Evaluator
from .._engine.score_gradient import ScoreGradient
from .._validation.settings import Settings, check_component
from ..baselines.base import Baseline, BaselineResult
from ..errors import UnilensError, require
from ..quadrature import Quadrature
from ..registry import Registry


class PathChunk(NamedTuple):
    """Consecutive steps of a path; the attribution is a sum over chunks, which are not kept.

    Attributes:
        fraction: `(n,)` or `(n, B)`, positions of the points on the path, in [0, 1].
        points: `(n, B, *S)`.
        evaluation: outputs `(n, B, K)`, scores `(n, B)` and gradients `(n, B, *S)` at the points.
        displacement: the displacement of the path in the step that each point represents, by which
            the gradient is multiplied; broadcasts against `(n, B, *S)`.
    """

    fraction: Tensor
    points: Tensor
    evaluation: Evaluation
    displacement: Tensor


Curve = Callable[[Tensor], Tensor]
"""From fractions of the path `(n,)` to points `(n, B, *S)`."""


class Path(Settings, ABC):
    """A path from a baseline to an input.

    A path that is known in advance implements `curve`; one whose next point depends on the gradient
    at the last implements `__call__`. The attribution is the sum over all chunks of gradient times
    displacement; chunks are yielded one at a time, so that memory does not grow with the number of
    steps. A plain function with the signature of `__call__` is accepted in place of a path.
    """

    @property
    def baseline(self) -> Baseline | None:
        """The only baseline from which the path can start; None where any baseline fits."""
        return None

    @property
    def takes_nodes_per_input(self) -> bool:
        """Whether the nodes and weights of a quadrature may be `(n_steps, B)`."""
        return False

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest `inputs.ndim` for which the channel axis matters; None if it never does."""
        return None

    def accepts(self, baseline: Baseline) -> None:
        """Raise where the path cannot start from a baseline."""

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where it does not fit a model or inputs `(B, *S)`."""

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve from the start to the end `(B, *S)`."""
        raise UnilensError(
            f"expected {type(self).__name__} to define curve or __call__, got neither; write "
            "curve(self, model, start, end)"
        )

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks in order, one step for each node, from start to end `(B, *S)`.

        The gradient at a node is multiplied by the chord from the start to the end of its step, so
        that the displacements sum to `end - start` for any number of steps and a linear model is
        explained exactly. The curve's derivative at the nodes does not have this property.
        """
        curve, corners = self._checked_curve(gradient.evaluator, start, end), edges(quadrature)
        last = curve(corners[:1])
        for fraction, edge in gradient.blocks(end, quadrature.nodes, corners[1:]):
            ends = curve(edge.flatten())
            points = ends if torch.equal(fraction, edge) else curve(fraction.flatten())
            displacement = torch.cat([last, ends]).diff(dim=0)
            last = ends[-1:]
            evaluation = self._evaluate(gradient, start, fraction.flatten(), points)
            yield PathChunk(fraction.flatten(), points, evaluation, displacement)

    def _evaluate(
        self, gradient: ScoreGradient, start: BaselineResult, fraction: Tensor, points: Tensor
    ) -> Evaluation:
        """Return the score and its gradient at points `(n, B, *S)` of the curve."""
        return gradient(points)

    def _checked_curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve, whose points are checked: another shape could broadcast in silence."""
        curve, name = self.curve(model, start, end), type(self).__name__
        require(callable(curve), f"expected a function from {name}.curve, got {curve!r}")

        def points(fraction: Tensor) -> Tensor:
            given: object = curve(fraction)
            shape = (len(fraction), *end.shape)
            came = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            require(
                came == shape,
                f"expected points (n, B, *S) of shape {shape} from the curve of {name}, got {came}",
            )
            return cast(Tensor, given)

        return points


@dataclass(frozen=True)
class FunctionPath(Path):
    """A plain function as a path.

    Args:
        function: as `Path.__call__`.
    """

    function: Callable[..., Iterator[PathChunk]]

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield what the function yields; see `Path`."""
        return self.function(gradient, start, end, quadrature)


def to_path(given: object) -> Path:
    """Return the path of a registered name or a function; return a path as it is."""
    if isinstance(given, Path):
        return given
    if isinstance(given, str):
        return paths[given]()
    check_component("path", given)
    return FunctionPath(cast(Callable[..., Iterator[PathChunk]], given))


paths: Registry[Path] = Registry("path")


def edges(quadrature: Quadrature) -> Tensor:
    """Return the edges of a rule's steps `(n_steps + 1,)`; a node's weight is its step's length.

    Each node lies within its step: for equal weights by definition, for Gauss-Legendre by the
    separation theorem of Chebyshev, Markov and Stieltjes (Szegö 1939, 3.41).
    """
    ends = quadrature.weights.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends / ends[-1]])

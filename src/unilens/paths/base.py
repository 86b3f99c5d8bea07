"""What a path is, and the registry of paths."""

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
from ..quadrature import Quadrature
from ..registry import Registry


class PathChunk(NamedTuple):
    """Some steps of a path, of which only the sum is kept.

    Attributes:
        fraction: `(n,)` or `(n, B)`, where on the path the points lie, in [0, 1].
        points: `(n, B, *S)`.
        evaluation: outputs `(n, B, K)`, scores `(n, B)` and gradients `(n, B, *S)` at the points.
        displacement: what each gradient is multiplied by: how far the path goes in the step that
            the point stands for; broadcasts against `(n, B, *S)`.
    """

    fraction: Tensor
    points: Tensor
    evaluation: Evaluation
    displacement: Tensor


Curve = Callable[[Tensor], Tensor]
"""From fractions of the way `(n,)` to points `(n, B, *S)`."""


class Path(Settings, ABC):
    """From a baseline to an input.

    A path that is known beforehand gives its `curve`. One that chooses its next point by the
    gradient at the last gives its chunks in place of it, in `__call__`. The attribution is the sum
    over all chunks of gradient times displacement; chunks are yielded, not returned, so that memory
    does not grow with the number of steps. Where a path is expected, a function of the shape of
    `__call__` will do.
    """

    @property
    def baseline(self) -> Baseline | None:
        """The only baseline that the path can start from; None where any will do."""
        return None

    @property
    def takes_nodes_per_input(self) -> bool:
        """Whether the nodes and weights of a quadrature may be `(n_steps, B)`."""
        return False

    @property
    def reads_axes_from(self) -> int | None:
        """The fewest dimensions of inputs for which it counts which holds the channels, if any."""
        return None

    def accepts(self, baseline: Baseline) -> None:
        """Raise where the path cannot start from a baseline."""

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where it does not fit a model or inputs `(B, *S)`."""

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve from the start to the end `(B, *S)`."""
        raise NotImplementedError(f"{type(self).__name__} has no curve; write one, or __call__")

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks in order, one step for each node, from start to end `(B, *S)`.

        The gradient at a node is multiplied by the chord from where its step begins to where it
        ends, so that the displacements add up to the whole way whatever the number of steps: a
        linear model is explained exactly, which a derivative of the curve at the nodes does not
        achieve.
        """
        curve, corners = self.curve(gradient.evaluator, start, end), edges(quadrature)
        last = curve(corners[:1])
        for fraction, edge in gradient.blocks(end, quadrature.nodes, corners[1:]):
            ends = curve(edge.flatten())
            points = ends if torch.equal(fraction, edge) else curve(fraction.flatten())
            displacement = torch.cat([last, ends]).diff(dim=0)
            last = ends[-1:]
            yield PathChunk(fraction.flatten(), points, gradient(points), displacement)


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
    """Return the path of a function; a path stays itself."""
    if isinstance(given, Path):
        return given
    check_component("path", given)
    return FunctionPath(cast(Callable[..., Iterator[PathChunk]], given))


paths: Registry[Path] = Registry("path")


def edges(quadrature: Quadrature) -> Tensor:
    """Return where the steps of a rule begin and end `(n_steps + 1,)`: a node's weight is its step.

    Every node lies within its step: for equal weights by definition, for Gauss-Legendre by the
    separation theorem of Chebyshev, Markov and Stieltjes (Szegö 1939, 3.41).
    """
    ends = quadrature.weights.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends / ends[-1]])

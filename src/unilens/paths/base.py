"""What a path is, and the registry of paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation
from .._engine.score_gradient import ScoreGradient
from ..baselines.base import BaselineResult
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


class Path(Protocol):
    """From a baseline to an input, chunk by chunk.

    The attribution is the sum over all chunks of gradient times displacement. Legs are yielded, not
    returned, so that memory does not grow with the number of steps, and so that a path may choose
    its next point by the gradient at the last.

    Optional: `baseline`, the only baseline that the path can start from; `accepts(baseline)`, which
    raises for baselines that it cannot; `check(model, inputs)`, which raises `NotApplicableError`.
    """

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks in order, one step for each node, from start to end `(B, *S)`."""


paths: Registry[Path] = Registry("path")


def edges(quadrature: Quadrature) -> Tensor:
    """Return where the steps of a rule begin and end `(n_steps + 1,)`: a node's weight is its step.

    Every node lies within its step: for equal weights by definition, for Gauss-Legendre by the
    separation theorem of Chebyshev, Markov and Stieltjes (Szegö 1939, 3.41).
    """
    ends = quadrature.weights.cumsum(0)
    return torch.cat([ends.new_zeros(1), ends / ends[-1]])


def along(
    gradient: ScoreGradient,
    curve: Callable[[Tensor], Tensor],
    end: Tensor,
    quadrature: Quadrature,
) -> Iterator[PathChunk]:
    """Yield the chunks of a curve that is known beforehand.

    The gradient at a node is multiplied by the chord from where its step begins to where it ends,
    so that the displacements add up to the whole way whatever the number of steps: a linear model
    is explained exactly, which a derivative of the curve at the nodes does not achieve.

    Args:
        gradient: of the score.
        curve: from fractions `(n,)` to points `(n, B, *S)`.
        end: `(B, *S)`.
        quadrature: the rule.
    """
    corners = edges(quadrature)
    last = curve(corners[:1])
    for fraction, edge in gradient.blocks(end, quadrature.nodes, corners[1:]):
        ends = curve(edge.flatten())
        points = ends if torch.equal(fraction, edge) else curve(fraction.flatten())
        displacement = torch.cat([last, ends]).diff(dim=0)
        last = ends[-1:]
        yield PathChunk(fraction.flatten(), points, gradient(points), displacement)

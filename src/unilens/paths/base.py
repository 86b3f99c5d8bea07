"""What a path is, and the registry of paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from torch import Tensor

from ..gradients import Evaluation, ScoreGradient
from ..quadrature import Quadrature
from ..registry import Registry


class Leg(NamedTuple):
    """Some steps of a path, of which only the sum is kept.

    Attributes:
        fraction: `(n,)`, where on the path the points lie, in [0, 1].
        points: `(n, B, *S)`.
        evaluation: outputs `(n, B, K)`, scores `(n, B)` and gradients `(n, B, *S)` at the points.
        displacement: what each gradient is multiplied by: the path's velocity times the weight of
            the step; broadcasts against `(n, B, *S)`.
    """

    fraction: Tensor
    points: Tensor
    evaluation: Evaluation
    displacement: Tensor


class Path(Protocol):
    """From a baseline to an input, leg by leg.

    The attribution is the sum over all legs of gradient times displacement. Legs are yielded, not
    returned, so that memory does not grow with the number of steps, and so that a path may choose
    its next point by the gradient at the last.
    """

    def __call__(
        self, gradient: ScoreGradient, start: Tensor, end: Tensor, quadrature: Quadrature
    ) -> Iterator[Leg]:
        """Yield the legs from start to end, both `(B, *S)`, in order."""


paths: Registry[Path] = Registry("path")

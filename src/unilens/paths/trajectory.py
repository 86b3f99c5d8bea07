"""The path over the points of the search for the baseline, in reverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation, Evaluator
from .._engine.score_gradient import ScoreGradient
from .._ops.precision import to_float64
from ..baselines.base import Baseline, BaselineResult, FunctionBaseline
from ..errors import UnilensError, require
from ..registry import Card
from .base import Curve, Path, paths

_NO_TRAJECTORY = (
    "expected a baseline that keeps its trajectory for path='trajectory', such as "
    "baseline='adversarial'; use path='straight'"
)


@dataclass(frozen=True)
class TrajectoryPath(Path):
    """The path from the baseline to the input over the points of the search, in reverse.

    The points lie at equal fractions. With as many steps as the search took and the right rule,
    the gradient at each point is multiplied by the step that the search took from it. Gradients of
    the score that the search has kept are used again.

    References:
        Pan, Li, Zhu, "Explaining Deep Neural Network Models with Adversarial Gradient
        Integration", IJCAI 2021.
    """

    def accepts(self, baseline: Baseline) -> None:
        """Raise unless a baseline keeps its trajectory; `curve` checks that of a plain function."""
        if not (baseline.has_trajectory or isinstance(baseline, FunctionBaseline)):
            raise UnilensError(_NO_TRAJECTORY)

    def curve(self, model: Evaluator, start: BaselineResult, end: Tensor) -> Curve:
        """Return the curve from start to end; see `Path`."""
        trajectory = start.trajectory
        if trajectory is None:
            raise UnilensError(_NO_TRAJECTORY)
        require(
            len(trajectory) > 1 and trajectory.shape[1:] == end.shape,
            f"expected a trajectory of two points or more, each of shape {tuple(end.shape)}, got "
            f"{tuple(trajectory.shape)}; keep both ends, the baseline and the input, in "
            "BaselineResult.trajectory",
        )
        segments = len(trajectory) - 1

        def points(fraction: Tensor) -> Tensor:
            position = _position(fraction, segments)
            first = (position.ceil().long() - 1).clamp_min(0)
            rest = (position - first).to(end).view(-1, *(1 for _ in end.shape))
            return trajectory[first] + rest * (trajectory[first + 1] - trajectory[first])

        return points

    def _evaluate(
        self, gradient: ScoreGradient, start: BaselineResult, fraction: Tensor, points: Tensor
    ) -> Evaluation:
        """Return what the search has kept where all nodes are points of it; see `Path`."""
        if start.evaluation is None:
            return gradient(points)
        position = _position(fraction, len(start.evaluation.values))
        if (position != position.round()).any() or (position < 1).any():
            return gradient(points)
        nodes = position.long() - 1
        return Evaluation(*(column[nodes] for column in start.evaluation))


def _position(fraction: Tensor, segments: int) -> Tensor:
    """Return fractions `(n,)` of a path in segments; those next to a corner are at it."""
    position = to_float64(fraction) * segments
    near_corner = (position - position.round()).abs() < 1e-6 * segments
    return torch.where(near_corner, position.round(), position)


paths.add(
    Card(
        "trajectory",
        "adversarial",
        "the points of the search for the baseline, in reverse (AGI)",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
    ),
    TrajectoryPath,
)

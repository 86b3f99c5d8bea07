"""The path over the points of the search for the baseline, in reverse."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
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
    the gradient at each point is multiplied by the step that the search took from it.

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
            position = to_float64(fraction) * segments
            near_corner = (position - position.round()).abs() < 1e-6 * segments
            position = torch.where(near_corner, position.round(), position)
            first = (position.ceil().long() - 1).clamp_min(0)
            rest = (position - first).to(end).view(-1, *(1 for _ in end.shape))
            return trajectory[first] + rest * (trajectory[first + 1] - trajectory[first])

        return points


paths.add(
    Card(
        "trajectory",
        "adversarial",
        "the points of the search for the baseline, in reverse (AGI)",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
    ),
    TrajectoryPath,
)

"""FRInGe-B: natural-gradient steps towards an input that says nothing about the target."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._ops.precision import expand_like, l2_norm, to_float64
from .._validation.settings import Count, Positive
from ..outputs import pick
from ..registry import Card
from .base import Baseline, BaselineResult, baselines

_SPARE = 1.1
"""Longest Fisher-Rao step as a multiple of the distance between waypoints."""


@dataclass(frozen=True)
class FisherRao(Baseline):
    """Compare with an input at which the target has the probability 1/K, by Fisher-Rao steps.

    The belief in the target is the point s = (sqrt p, sqrt(1 - p)) of the unit circle. T waypoints
    s_t divide the arc of length theta from the belief at x to that of 1/K equally. A step towards
    waypoint s_t = (a, b) lowers 1 - <s, s_t> by the natural gradient of the rank-one metric
    p (1 - p) u u^T, with u the gradient of the log odds log(p / (1 - p)) and lambda the damping:

    v = beta u / (lambda + p (1 - p) |u|^2), beta = (p sqrt(1 - p) b - (1 - p) sqrt(p) a) / 2,
    x <- x - eta v, with eta the smallest of the largest rate, of that at which the step has the
    Fisher-Rao length 1.1 (2 theta / T), and of that at which it has the longest l2 norm.

    This is the closed form, without smoothing. The paper gives the Fisher-Rao length of a step and
    has as many waypoints as follow from it; here T is given and the length follows, so that the
    cost is known. The authors tune the other settings for each network; these defaults are
    unilens's. For a single output, and for multi-label outputs, K is 2.

    Args:
        waypoints: T, how many; each costs a forward and a backward pass.
        damping: lambda; the larger, the shorter a step where the gradient is small.
        longest_step: the largest l2 norm of a step, in the inputs' units.
        largest_rate: the largest eta; 4 reaches the waypoint to first order, without damping.

    References:
        Martino, Tschiatschek, "FRInGe: Distribution-Space Integrated Gradients with Fisher-Rao
        Geometry", 2026, arXiv 2605.06404; the binary form follows the authors' public code.
    """

    waypoints: Count = 60
    damping: Positive = 0.01
    longest_step: Positive = 1.0
    largest_rate: Positive = 4.0

    @property
    def has_trajectory(self) -> bool:
        """True: the points of the search are kept."""
        return True

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, one each for every waypoint."""
        return PassCount(self.waypoints, self.waypoints)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Return True: the search starts at the inputs."""
        return True

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> BaselineResult:
        """Return the baseline with its trajectory; the record has the belief before each step.

        `record["target_probability"]` is `(B, T)`.
        """
        spec = output_spec(model, inputs)
        spec.check_classes()

        def log_odds(outputs: Tensor, rows: Tensor) -> Tensor:
            logits, own = spec.class_logits(outputs, target[rows])
            others = logits.scatter(-1, own.unsqueeze(-1), -torch.inf)
            return pick(logits, own) - others.logsumexp(-1)

        points, beliefs, angles = [inputs], list[Tensor](), None
        for number in range(1, self.waypoints + 1):
            evaluation = model.differentiate(points[-1].unsqueeze(0), log_odds)
            odds, slope = to_float64(evaluation.values[0]), evaluation.gradients[0]
            angle = _angle(odds)
            if angles is None:
                classes = spec.class_logits(evaluation.outputs[0], target)[0].shape[-1]
                angles = angle, torch.full_like(angle, math.acos(classes**-0.5))
            first, last = angles
            share = number / self.waypoints
            waypoint = first + share * (last - first)
            longest = _SPARE * 2 * (last - first).abs() / self.waypoints
            scale = self._scale(odds, waypoint, longest, l2_norm(slope))
            points.append(points[-1] - expand_like(scale, slope) * slope)
            beliefs.append(odds.sigmoid())
        trajectory = torch.stack(points[::-1])
        record = {"target_probability": torch.stack(beliefs, dim=1)}
        return BaselineResult(trajectory[0], record, trajectory=trajectory)

    def _scale(self, odds: Tensor, waypoint: Tensor, longest: Tensor, norm: Tensor) -> Tensor:
        """Return the factors `(B,)` of the gradients of the log odds in a step, eta v / u.

        Args:
            odds: `(B,)`, the log odds.
            waypoint: `(B,)`, its angle.
            longest: `(B,)`, largest Fisher-Rao length of the step.
            norm: `(B,)`, l2 norm of the gradient.
        """
        belief, rest = odds.sigmoid(), (-odds).sigmoid()
        metric = belief * rest
        slope = (belief * rest.sqrt() * waypoint.sin() - rest * belief.sqrt() * waypoint.cos()) / 2
        scale = slope / (self.damping + metric * norm.square())
        rates = torch.stack(
            [
                torch.full_like(scale, self.largest_rate),
                longest / (metric.sqrt() * scale.abs() * norm.square()),
                self.longest_step / (scale.abs() * norm),
            ]
        )
        return torch.where(scale * norm != 0, rates.amin(0) * scale, 0.0)


def _angle(odds: Tensor) -> Tensor:
    """Return the angles `(B,)` of (sqrt p, sqrt(1 - p)) on the unit circle, from log odds."""
    return torch.atan2((-odds).sigmoid().sqrt(), odds.sigmoid().sqrt())


baselines.add(
    Card(
        "fisher_rao",
        "entropy",
        "an input that says nothing about the target, by natural gradients (FRInGe-B)",
        "Martino, Tschiatschek 2026, arXiv 2605.06404",
        higher_precision=True,
    ),
    FisherRao,
)

"""MFABA: the first point across the decision boundary, found by steps that lower the score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation, Evaluator, Objective, PassCount
from .._engine.output_detection import output_spec
from .._validation.settings import Bounds, Count, Positive
from ..registry import Card
from ..scores import Score, resolve
from .base import Baseline, BaselineResult, baselines
from .shift import to_length

_STEP_SIZES = {"sharp": 0.1, "smooth": 0.001}


@dataclass(frozen=True)
class Boundary(Baseline):
    """Compare with the point at which an attack makes another class win.

    x_0 = x. With g the gradient of the target's probability at x_j, and mu the step size, the
    "sharp" attack takes x_{j+1} = x_j - mu g / |g|_2, the "smooth" one x_j - mu sign(g), clipped to
    the budget around x. It takes at least one step, and ends where another class wins or after m
    steps; the points are its trajectory. Their gradients are kept: with path='trajectory',
    rule='right' and m steps of the path, the integral of the probability takes no further passes.

    Args:
        attack: "sharp" or "smooth".
        iterations: m, the largest number of steps.
        step_size: mu, in the inputs' units: an l2 norm for "sharp", a change of every value for
            "smooth"; None for 0.1 and 0.001, those of the authors' public code.
        budget: the largest distance of a value from the input's, used by "smooth" alone.
        clamp: whether to clip every point to `bounds`, as the authors do.
        bounds: the lowest and highest value of an input, used by `clamp` alone.

    References:
        Zhu et al., "MFABA: A More Faithful and Accelerated Boundary-based Attribution Method for
        Deep Neural Networks", AAAI 2024, arXiv 2312.13630.
    """

    attack: Literal["sharp", "smooth"] = "sharp"
    iterations: Count = 50
    step_size: Positive | None = None
    budget: Positive = 0.3
    clamp: bool = False
    bounds: Bounds = (0.0, 1.0)

    @property
    def has_trajectory(self) -> bool:
        """True: the points of the search are kept."""
        return True

    @property
    def passes(self) -> PassCount:
        """Passes per input, at most: the attack ends where another class wins."""
        return PassCount(self.iterations, self.iterations)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Return True: the search starts at the inputs."""
        return True

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> BaselineResult:
        """Return the baseline with its trajectory and the gradients on it; see `Baseline`."""
        spec = output_spec(model, inputs)
        spec.check_classes()
        score = resolve("probability", model)
        points, evaluations = [inputs], list[Evaluation]()
        active = torch.arange(len(inputs), device=inputs.device)
        for _ in range(self.iterations):
            if len(active):
                classes = target[active]
                evaluation = model.differentiate(
                    points[-1][active].unsqueeze(0), _objective(score, classes)
                )
                evaluation = _with_rows(evaluations, active, evaluation)
                if evaluations:
                    logits, winners = spec.class_logits(evaluation.outputs[0][active], classes)
                    active = active[logits.argmax(-1) == winners]
            evaluations.append(evaluation)
            points.append(self._step(inputs, points[-1], evaluation.gradients[0], active))
        trajectory = torch.stack(points[::-1])
        kept = Evaluation(*(torch.cat(column) for column in zip(*evaluations[::-1], strict=True)))
        return BaselineResult(
            trajectory[0], trajectory=trajectory, evaluation=kept, score="probability"
        )

    def _step(self, inputs: Tensor, point: Tensor, gradient: Tensor, active: Tensor) -> Tensor:
        """Return the points after a step of the active rows; other points as they are."""
        size = _STEP_SIZES[self.attack] if self.step_size is None else self.step_size
        slope = gradient[active]
        if self.attack == "sharp":
            moved = point[active] - to_length(slope, size)
        else:
            shift = point[active] - size * slope.sign() - inputs[active]
            moved = inputs[active] + shift.clamp(-self.budget, self.budget)
        following = point.clone()
        following[active] = moved.clamp(*self.bounds) if self.clamp else moved
        return following


def _objective(score: Score, target: Tensor) -> Objective:
    return lambda outputs, rows: score(outputs, target[rows])


def _with_rows(before: list[Evaluation], rows: Tensor, new: Evaluation) -> Evaluation:
    """Return the last evaluation `(1, B, ...)` with those of some rows replaced."""
    if not before:
        return new
    columns = []
    for old, values in zip(before[-1], new, strict=True):
        column = old.clone()
        column[:, rows] = values
        columns.append(column)
    return Evaluation(*columns)


baselines.add(
    Card(
        "boundary",
        "adversarial",
        "the point at which an attack makes another class win (MFABA)",
        "Zhu et al. 2024, arXiv 2312.13630",
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    Boundary,
)

"""IG2: descent from the input to the representation of inputs of other classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._engine.representation import representation
from .._ops.precision import to_float64
from .._validation.references import References, references_for
from .._validation.settings import Bounds, Count, Positive
from ..errors import UnilensError
from ..registry import Card
from .base import Baseline, BaselineResult, baselines
from .shift import to_length

_OWNER = "the baseline counterfactual"


@dataclass(frozen=True, eq=False)
class Counterfactual(Baseline):
    """Compare with inputs that the model represents like references of other classes.

    With r(x) the representation of x, what the model's last layer with weights receives, and x_r a
    reference: x_0 = x, x_{j+1} = x_j - mu n(grad |r(x_j) - r(x_r)|_2^2), n the scaling to an l2
    norm of 1. The last of m steps is the baseline (the paper's GradCF), and the points are its
    trajectory (GradPath). For each input only references count at which another class than the
    target wins, all with the same weight.

    The paper's points are clipped to [0, 1]; `clamp` does that.

    Args:
        references: `(R, *S)`, inputs of several classes; required.
        iterations: m, the number of steps.
        step_size: mu, in the inputs' units; the paper's 256 of 255 levels is 1.
        clamp: whether to clip every point to `bounds`.
        bounds: the lowest and highest value of an input, used by `clamp` alone.

    References:
        Zhuo, Ge, "IG2: Integrated Gradient on Iterative Gradient Path for Feature Attribution",
        IEEE TPAMI 46 (11), 2024, arXiv 2406.10852.
    """

    references: References | None = None
    iterations: Count = 201
    step_size: Positive = 1.0
    clamp: bool = False
    bounds: Bounds = (0.0, 1.0)

    @property
    def count(self) -> int:
        """Baselines per input: one for each reference."""
        return 1 if self.references is None else len(self.references)

    @property
    def has_trajectory(self) -> bool:
        """True: the points of the search are kept."""
        return True

    @property
    def passes(self) -> PassCount:
        """Passes per input, at most: references of the target's class are left out."""
        steps = self.count * self.iterations
        return PassCount(2 * self.count + steps, steps)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Return True: the search starts at the inputs."""
        return True

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `UnilensError` where references are missing or have another shape."""
        references_for(_OWNER, self.references, inputs)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Iterable[BaselineResult]:
        """Yield the baselines, each with its trajectory; see `Baseline`."""
        references = references_for(_OWNER, self.references, inputs)
        fits = _of_other_classes(model, inputs, references, target)
        features = representation(model, inputs)
        weights = to_float64(fits) / fits.sum(0)
        goals = features(references)
        for goal, chosen, weight in zip(goals, fits, weights, strict=True):
            trajectory = self._search(features, inputs, chosen.nonzero()[:, 0], goal)
            yield BaselineResult(trajectory[0], weight=weight, trajectory=trajectory)

    def _search(self, features: Evaluator, inputs: Tensor, rows: Tensor, goal: Tensor) -> Tensor:
        """Return the points `(m + 1, B, *S)` of the descent, the last first; other rows stay."""
        point, points = inputs[rows], [inputs]

        def distance(outputs: Tensor, _: Tensor) -> Tensor:
            return (outputs - goal).square().sum(-1)

        for _ in range(self.iterations if len(rows) else 0):
            evaluation = features.differentiate(point.unsqueeze(0), distance)
            point = point - to_length(evaluation.gradients[0], self.step_size)
            point = point.clamp(*self.bounds) if self.clamp else point
            following = inputs.clone()
            following[rows] = point
            points.append(following)
        points += [inputs] * (self.iterations + 1 - len(points))
        return torch.stack(points[::-1])


def _of_other_classes(
    model: Evaluator, inputs: Tensor, references: Tensor, target: Tensor
) -> Tensor:
    """Return whether another class than the target wins at each reference `(R, B)`.

    Raises:
        UnilensError: there is an input for which none does.
    """
    spec = output_spec(model, inputs)
    fits = []
    for outputs in model(references):
        logits, classes = spec.class_logits(outputs.expand(len(target), -1), target)
        fits.append(logits.argmax(-1) != classes)
    found = torch.stack(fits)
    if not found.any(0).all():
        wrong = target[~found.any(0)][0]
        raise UnilensError(
            f"expected references of other classes than the target, got {len(references)} at which "
            f"class {int(wrong)} wins; add references of other classes"
        )
    return found


baselines.add(
    Card(
        "counterfactual",
        "references",
        "an input represented like references=(R, *S) of other classes (IG2)",
        "Zhuo, Ge 2024, arXiv 2406.10852",
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    Counterfactual,
)

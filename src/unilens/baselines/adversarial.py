"""AGI: inputs that the model assigns to other classes, found by signed gradient steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._ops.random import per_input, uniform
from .._validation.settings import (
    Bounds,
    Count,
    Positive,
    check_count,
)
from ..errors import UnilensError, require
from ..outputs import OutputSpec, pick
from ..registry import Card
from .base import Baseline, BaselineResult, baselines


@dataclass(frozen=True)
class Adversarial(Baseline):
    """Compare with inputs that the model assigns to other classes, one for each class.

    For class i: x_0 = x, x_{j+1} = x_j + (epsilon / m) sign(grad log F_i(x_j)), until class i wins
    or m steps are taken; the last point is the baseline, and the points are its trajectory. All
    classes have the same weight: with path='trajectory' the attribution is the paper's divided by
    their number, so that it sums to f(x) minus the mean score at the baselines.

    In the authors' public code every step starts from x again, so that no point is farther than
    one step from x, and points are clipped to [0, 1]. This class follows the paper; `clamp` clips.
    For a single output, and for multi-label outputs, the other class is the absence of the target.

    Args:
        classes: the number of other classes, or their indices; all others where there are fewer.
        choice: "random" (paper) or "top", the most likely classes.
        iterations: m, the largest number of steps.
        budget: epsilon, the largest distance of a value from the input's (l-infinity), in the
            inputs' units; the paper's step of 0.05 is a twentieth of it.
        clamp: whether to clip every point to `bounds`.
        bounds: the lowest and highest value of an input, used by `clamp` alone.

    References:
        Pan, Li, Zhu, "Explaining Deep Neural Network Models with Adversarial Gradient
        Integration", IJCAI 2021, algorithms 1 and 2, doi 10.24963/ijcai.2021/396.
    """

    classes: int | Sequence[int] = 20
    choice: Literal["random", "top"] = "random"
    iterations: Count = 20
    budget: Positive = 1.0
    clamp: bool = False
    bounds: Bounds = (0.0, 1.0)

    def __post_init__(self) -> None:
        if isinstance(self.classes, (list, tuple)):
            require(
                len(set(self.classes)) == len(self.classes) > 0
                and all(type(index) is int and index >= 0 for index in self.classes),
                f"expected classes to be a number or different class indices, got {self.classes!r}",
            )
        else:
            check_count("classes", self.classes)

    @property
    def count(self) -> int:
        """Baselines per input, at most."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def has_trajectory(self) -> bool:
        """True: the points of the search are kept."""
        return True

    @property
    def passes(self) -> PassCount:
        """Passes per input, at most: a search ends where its class wins."""
        steps = self.count * self.iterations
        return PassCount(1 + steps, steps)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Return True: the search starts at the inputs."""
        return True

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Iterable[BaselineResult]:
        """Yield the baselines, each with its trajectory; see `Baseline`."""
        spec, outputs = output_spec(model, inputs), model(inputs)
        logits, classes = spec.class_logits(outputs, target)
        others = self._others(logits, inputs, classes, generator)
        for other in others:
            trajectory = self._search(model, inputs, _ClassObjective(spec, target, other))
            yield BaselineResult(trajectory[0], weight=1 / len(others), trajectory=trajectory)

    def _others(
        self, outputs: Tensor, inputs: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the other classes `(R, B)`, never the target."""
        known = outputs.shape[1]
        if not isinstance(self.classes, int):
            named = torch.tensor(self.classes, device=target.device).unsqueeze(1)
            wrong = [
                index for index in self.classes if index >= known or bool((target == index).any())
            ]
            if wrong:
                raise UnilensError(
                    f"expected classes below {known} other than the one explained, got {wrong[0]}"
                )
            return named.expand(-1, len(target))
        order = outputs
        if self.choice == "random":
            order = per_input(inputs, generator, lambda g: uniform((known,), g))
        order = order.scatter(1, target.unsqueeze(1), -torch.inf)
        return order.topk(min(self.classes, known - 1), dim=1).indices.T

    def _search(self, model: Evaluator, inputs: Tensor, objective: _ClassObjective) -> Tensor:
        """Return the points `(m + 1, B, *S)` of the trajectories, the last first."""
        points = [inputs]
        active = torch.arange(len(inputs), device=inputs.device)
        for _ in range(self.iterations):
            point = points[-1].clone()
            if len(active):
                selected = objective.of_rows(active)
                evaluation = model.differentiate(point[active].unsqueeze(0), selected)
                continues = ~selected.reached(evaluation.outputs[0])
                active = active[continues]
                step = evaluation.gradients[0][continues].sign() * (self.budget / self.iterations)
                moved = point[active] + step
                point[active] = moved.clamp(*self.bounds) if self.clamp else moved
            points.append(point)
        return torch.stack(points[::-1])


@dataclass(frozen=True)
class _ClassObjective:
    """The log-probability of the other classes `(B,)`, in nats."""

    spec: OutputSpec
    target: Tensor
    other: Tensor

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return the log-probabilities `(m,)` of outputs `(m, K)`."""
        logits, _ = self.spec.class_logits(outputs, self.target[rows])
        return pick(logits.log_softmax(-1), self.other[rows])

    def reached(self, outputs: Tensor) -> Tensor:
        """Return whether the other class wins `(B,)`."""
        logits, _ = self.spec.class_logits(outputs, self.target)
        return logits.argmax(-1) == self.other

    def of_rows(self, rows: Tensor) -> _ClassObjective:
        """Return the objective for some of the inputs."""
        return _ClassObjective(self.spec, self.target[rows], self.other[rows])


baselines.add(
    Card(
        "adversarial",
        "adversarial",
        "inputs that the model assigns to other classes (AGI)",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
        deterministic=False,
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    Adversarial,
)

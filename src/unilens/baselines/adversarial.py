"""AGI: the inputs at which other classes win, found by walking towards them."""

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
    """Compare with the inputs at which the model sees another class, one for each such class.

    For class i: x_0 = x, x_{j+1} = x_j + (epsilon / m) sign(grad log F_i(x_j)), until class i wins
    or m steps are taken; the last point is the baseline, and the points are its trajectory. All
    classes weigh the same: with path='trajectory' the attribution is the paper's divided by their
    number, so that it adds up to f(x) less the mean score at the baselines.

    The authors' public code departs from the paper: every step starts from x again, so that no
    point is farther than one step from it, and points are clipped to [0, 1]. This follows the
    paper; `clamp` clips. For one output, and for labels that go together, the other class is that
    the target does not apply.

    Args:
        classes: how many other classes, or which (indices); all others where there are fewer.
        choice: "random" (paper) or "top", those that the model finds likeliest.
        iterations: m, the largest number of steps.
        budget: epsilon, how far a value can get from the input's (l-infinity), in the inputs'
            units; the paper's step of 0.05 is its 20th part.
        clamp: whether to clip every point to `bounds`.
        bounds: the input box.

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
                and all(type(one) is int and one >= 0 for one in self.classes),
                f"expected classes to be a number or different class indices, got {self.classes!r}",
            )
        else:
            check_count("classes", self.classes)

    @property
    def count(self) -> int:
        """Baselines per input, upper bound."""
        return self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def has_trajectory(self) -> bool:
        """Whether it keeps the points of its search: it does."""
        return True

    @property
    def passes(self) -> PassCount:
        """Passes per input, upper bound: a walk ends where the class wins."""
        steps = self.count * self.iterations
        return PassCount(1 + steps, steps)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether the search begins at the inputs: it does."""
        return True

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Iterable[BaselineResult]:
        """Yield the baselines, each with its trajectory; see `Baseline`."""
        spec, outputs = output_spec(model, inputs), model(inputs)
        logits, classes = spec.class_logits(outputs, target)
        others = self._others(logits, inputs, classes, generator)
        for other in others:
            trajectory = self._walk(model, inputs, _Towards(spec, target, other))
            yield BaselineResult(trajectory[0], weight=1 / len(others), trajectory=trajectory)

    def _others(
        self, outputs: Tensor, inputs: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the classes `(R, B)` to walk to, never the target."""
        known = outputs.shape[1]
        if not isinstance(self.classes, int):
            named = torch.tensor(self.classes, device=target.device).unsqueeze(1)
            wrong = [one for one in self.classes if one >= known or bool((target == one).any())]
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

    def _walk(self, model: Evaluator, inputs: Tensor, towards: _Towards) -> Tensor:
        """Return the points `(m + 1, B, *S)` of the trajectories, the last first."""
        points = [inputs]
        left = torch.arange(len(inputs), device=inputs.device)
        for _ in range(self.iterations):
            here = points[-1].clone()
            if len(left):
                aim = towards.of_rows(left)
                evaluation = model.differentiate(here[left].unsqueeze(0), aim)
                on = ~aim.reached(evaluation.outputs[0])
                left = left[on]
                step = evaluation.gradients[0][on].sign() * (self.budget / self.iterations)
                moved = here[left] + step
                here[left] = moved.clamp(*self.bounds) if self.clamp else moved
            points.append(here)
        return torch.stack(points[::-1])


@dataclass(frozen=True)
class _Towards:
    """The log-probability of other classes `(B,)` than the targets `(B,)`."""

    spec: OutputSpec
    target: Tensor
    other: Tensor

    def __call__(self, outputs: Tensor, rows: Tensor) -> Tensor:
        """Return it `(m,)` of outputs `(m, K)`."""
        logits, _ = self.spec.class_logits(outputs, self.target[rows])
        return pick(logits.log_softmax(-1), self.other[rows])

    def reached(self, outputs: Tensor) -> Tensor:
        """Return whether the other class wins `(B,)`."""
        logits, _ = self.spec.class_logits(outputs, self.target)
        return logits.argmax(-1) == self.other

    def of_rows(self, rows: Tensor) -> _Towards:
        """Return the same for some of the inputs."""
        return _Towards(self.spec, self.target[rows], self.other[rows])


baselines.add(
    Card(
        "adversarial",
        "adversarial",
        "the inputs at which other classes win (AGI)",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
        deterministic=False,
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    Adversarial,
)

"""The input at which the model knows least: its output is as near to uniform as can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, Objective, PassCount
from .._engine.output_detection import output_spec
from .._ops.random import per_input, uniform
from .._validation.settings import Bounds, Count, Positive
from ..outputs import OutputSpec
from ..registry import Card
from .adam import Adam
from .base import Baseline, BaselineResult, baselines


@dataclass(frozen=True)
class MaxEntropy(Baseline):
    """Compare with an input whose class probabilities a search has brought near to uniform.

    Adam minimises KL(softmax || uniform) = log K - entropy, in nats, for every input alone.
    Only the paper's abstract could be read: the objective is its, while the optimiser, where it
    starts, its rate and its number of iterations are our choices. For one output, and for labels
    that go together, the two classes are whether the target applies.

    Args:
        start: where the search begins: "input"; "black", 0 everywhere; "noise", uniform draws from
            `bounds`.
        learning_rate: of Adam: about the most that a value moves per iteration, in the inputs'
            units.
        iterations: Adam's steps; every one costs a forward and a backward pass.
        clamp: whether to clip to `bounds` after each step.
        bounds: the input box, in the inputs' units, used by `clamp` and the start "noise".

    References:
        Tan, "Maximum Entropy Baseline for Integrated Gradients", 2022, arXiv 2204.05948;
        Kingma, Ba, "Adam", ICLR 2015, arXiv 1412.6980.
    """

    start: Literal["input", "black", "noise"] = "input"
    learning_rate: Positive = 0.01
    iterations: Count = 50
    clamp: bool = False
    bounds: Bounds = (0.0, 1.0)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input: one per iteration, and one more entropy."""
        return PassCount(self.iterations + 1, self.iterations)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether the search begins at the inputs."""
        return self.start == "input"

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> BaselineResult:
        """Return the baseline with the record `entropy_gap` `(B, iterations + 1)`, in nats."""
        objective = _entropy_gap(output_spec(model, inputs), target)
        values = self._start(inputs, generator)
        adam = Adam(self.learning_rate, values)
        gaps = []
        for _ in range(self.iterations):
            evaluation = model.differentiate(values.unsqueeze(0), objective)
            gaps.append(evaluation.values[0])
            values = values - adam.step(evaluation.gradients[0])
            if self.clamp:
                values = values.clamp(*self.bounds)
        gaps.append(objective(model(values), torch.arange(len(values), device=values.device)))
        return BaselineResult(values, {"entropy_gap": torch.stack(gaps, dim=1)})

    def _start(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        if self.start == "input":
            return inputs
        if self.start == "black":
            return torch.zeros_like(inputs)
        low, high = self.bounds
        shape = inputs.shape[1:]
        noise = per_input(inputs, generator, lambda g: uniform(shape, g))
        return noise * (high - low) + low


def _entropy_gap(spec: OutputSpec, target: Tensor) -> Objective:
    """Return the objective log K - entropy of the classes, in nats: 0 where they are uniform."""
    spec.check_classes()

    def gap(outputs: Tensor, rows: Tensor) -> Tensor:
        logits, _ = spec.class_logits(outputs, target[rows])
        logs = logits.log_softmax(-1)
        return math.log(logits.shape[-1]) + (logs.exp() * logs).sum(-1)

    return gap


baselines.add(
    Card(
        "max_entropy",
        "entropy",
        "an input at which the model's output is nearly uniform",
        "Tan 2022, arXiv 2204.05948",
        higher_precision=True,
    ),
    MaxEntropy,
)

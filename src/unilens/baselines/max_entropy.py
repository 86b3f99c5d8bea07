"""Baselines of maximum entropy: inputs at which the model's output is nearly uniform."""

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
    """Compare with an input whose class probabilities are nearly uniform, found by a search.

    Adam minimises KL(softmax || uniform) = log K - entropy, in nats, for each input separately.
    The objective follows the paper's abstract; the optimiser, its start, rate and number of
    iterations are choices of unilens, as the full text was not available. For a single output, and
    for multi-label outputs, the two classes are the presence and the absence of the target.

    Args:
        start: the first point of the search: "input"; "black", 0 everywhere; "noise", uniform
            draws from `bounds`.
        learning_rate: of Adam: roughly the largest change of a value per iteration, in the inputs'
            units.
        iterations: Adam's steps; each costs a forward and a backward pass.
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
        """Forward and backward passes per input: one per iteration, and a last forward pass."""
        return PassCount(self.iterations + 1, self.iterations)

    def starts_at_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether the search starts at the inputs."""
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

"""The objectives of UNI: what unlearning raises, and the loss that the search lowers.

Each is a function from outputs `(m, K)` and their inputs' numbers `(m,)` to values `(m,)`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .._engine.evaluator import Objective
from ..outputs import OutputSpec, pick


def surprise(spec: OutputSpec, target: Tensor) -> Objective:
    """Return the cross-entropy of the target `(B,)`, in nats, which unlearning raises."""

    def objective(outputs: Tensor, rows: Tensor) -> Tensor:
        logits, classes = spec.class_logits(outputs, target[rows])
        return cross_entropy(logits, classes, reduction="none")

    return objective


def lowered(target: Tensor) -> Objective:
    """Return the negative of the target's output, which unlearning a value raises."""
    return lambda outputs, rows: -pick(outputs, target[rows])


def divergence(spec: OutputSpec, target: Tensor, target_log_probs: Tensor) -> Objective:
    """Return the loss KL(target_log_probs || probabilities of the outputs), in nats."""

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        expected = target_log_probs[rows].to(outputs.dtype)
        logits, _ = spec.class_logits(outputs, target[rows])
        gap = expected - logits.log_softmax(-1)
        return torch.where(expected > -torch.inf, expected.exp() * gap, 0.0).sum(-1)

    return loss


def squared_distance(target: Tensor, values: Tensor) -> Objective:
    """Return the loss (f - values)^2, f the target's output."""

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        return (pick(outputs, target[rows]) - values[rows].to(outputs)).square()

    return loss

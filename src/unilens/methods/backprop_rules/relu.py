"""Guided backpropagation and deconvolution: gradients with another rule at every ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..._engine.activations import Activation, Call, Rule
from ..._engine.evaluator import Evaluator, PassCount
from ..._validation.models import not_differentiable
from ...attribution import Attribution
from ...errors import NotApplicableError
from ...explainer import ExplainContext, Method
from ...registry import Card
from ...scores import AnyScore
from ...scores import resolve as resolve_score
from ..base import methods
from .passes import input_gradient, run_with_rules

_OTHER_ACTIVATIONS = frozenset(
    (
        *("celu", "clamp", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
        *("mish", "prelu", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
    )
)


def _guided(activation: Activation, gradient: Tensor) -> Tensor:
    """Clamp the gradient at zero after the ReLU's derivative."""
    return activation.derivative(gradient).relu()


def _deconvolution(activation: Activation, gradient: Tensor) -> Tensor:
    """Clamp the gradient at zero in place of the ReLU's derivative."""
    return gradient.relu()


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient, with negative values set to zero in the backward pass of every ReLU.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Springenberg et al. 2015, arXiv 1412.6806.
    """

    passes = PassCount(2, 1)

    score: AnyScore = "probability"

    _name: ClassVar[str] = "guided_backprop"
    _rules: ClassVar[dict[str, Rule]] = {"relu": _guided, "relu6": _guided}

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the model has no ReLU; it takes a forward pass."""
        with run_with_rules(model, inputs[:1], self._rules) as (mode, run):
            outputs = run(inputs[:1].clone().requires_grad_())
        if not outputs.requires_grad:
            raise not_differentiable(model.model)
        if not mode.applied:
            others = dict.fromkeys(filter(None, map(_activation_name, mode.others)))
            raise NotApplicableError(
                f"{self._name} needs ReLU activations, the model has none (its activations: "
                f"{', '.join(others) or 'none'}); use method='gradient'"
            )

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)

        def gradient(row: int) -> Tensor:
            point = context.inputs[row : row + 1].clone().requires_grad_()
            with run_with_rules(context.evaluator, point, self._rules) as (_, run):
                total = score(run(point), context.target[row : row + 1]).sum()
                return input_gradient(context.evaluator.model, total, point)[0]

        return Attribution(
            values=torch.stack(context.evaluator.for_each(len(context.inputs), gradient)),
            target=context.target,
            score=score(context.outputs, context.target),
            outputs=context.outputs,
            complete=self.complete,
        )


@dataclass(frozen=True)
class Deconvolution(GuidedBackprop):
    """The gradient, with the derivative of every ReLU replaced by a ReLU of the gradient.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Zeiler and Fergus 2014, arXiv 1311.2901.
    """

    _name: ClassVar[str] = "deconvolution"
    _rules: ClassVar[dict[str, Rule]] = {"relu": _deconvolution, "relu6": _deconvolution}


def _activation_name(call: Call) -> str | None:
    """Return the name of the activation that a call computes; None where it computes none."""
    if call.module.__module__ == "torch.nn.modules.activation":
        return call.module.__name__
    return call.function if call.function in _OTHER_ACTIVATIONS else None


methods.add(
    Card(
        "guided_backprop",
        "rules",
        "the gradient, with negative values set to zero at every ReLU",
        "Springenberg et al. 2015, arXiv 1412.6806",
        traits=("relu",),
    ),
    GuidedBackprop,
)
methods.add(
    Card(
        "deconvolution",
        "rules",
        "the gradient, with a ReLU of it in place of every ReLU's derivative",
        "Zeiler and Fergus 2014, arXiv 1311.2901",
        traits=("relu",),
    ),
    Deconvolution,
)

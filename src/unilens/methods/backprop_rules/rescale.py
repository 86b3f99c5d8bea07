"""The rescale rule of DeepLIFT, and the models to which it applies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..._engine.activations import POOLING, Activation, ActivationRules, Rule, own_functions
from ..._engine.evaluator import Evaluator
from ..._ops.precision import to_float64
from ..._validation.models import not_differentiable, quantised
from ...errors import NotApplicableError
from ...explainer import ExplainContext
from ...scores import logit
from .passes import input_gradient, run_with_rules

_LARGEST_GAP = {torch.bfloat16: 5e-2}
"""Largest gap of the completeness, as a share of the sum of absolute values, by the points' dtype;
1e-3 for other dtypes. A larger gap than rounding shows an operation that the rules did not see."""
_NO_DIFFERENCE = 1e-10
"""Below this difference of the inputs the derivative replaces the quotient of the differences."""


def _rescale_elementwise(activation: Activation, gradient: Tensor) -> Tensor:
    """Scale by the quotient of the differences; the two rows are the input's and the baseline's."""
    change = activation.input[:1] - activation.input[1:]
    slope = (activation.output[:1] - activation.output[1:]) / change
    flat = change.abs() < _NO_DIFFERENCE
    return torch.where(flat, activation.derivative(gradient), gradient * slope)


def _rescale_pooling(activation: Activation, gradient: Tensor) -> Tensor:
    """Scale by the quotients of max pooling, whose windows each have two maxima.

    A window's difference is split at the larger of both maxima: what lies below it goes to the
    position of the input's maximum, the rest to that of the baseline's maximum.
    """
    inputs, outputs = activation.input, activation.output
    larger = outputs.max(0, keepdim=True).values
    added = torch.cat([larger - outputs[1:], outputs[:1] - larger]) * gradient
    pool = getattr(functional, f"max_pool{inputs.ndim - 2}d_with_indices")
    settings = {key: value for key, value in activation.settings.items() if key != "return_indices"}
    with torch.no_grad():
        positions = pool(inputs, **settings)[1]
    by_position = torch.zeros_like(inputs).flatten(2)
    by_position = by_position.scatter_add(2, positions.flatten(2), added.flatten(2))
    total = by_position.sum(0, keepdim=True).view_as(inputs[:1])
    change = inputs[:1] - inputs[1:]
    flat = change.abs() < _NO_DIFFERENCE
    return torch.where(flat, activation.derivative(gradient), total / change)


_ELEMENTWISE = ("relu", "relu6", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "softplus")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _rescale_elementwise),
    **dict.fromkeys(POOLING, _rescale_pooling),
}


def rescale(context: ExplainContext, row: int, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Return one input's values `(*S)`, and the score at the baseline `(*S)`.

    Raises:
        NotApplicableError: the pass met an operation without a rule.
    """
    points = torch.stack([context.inputs[row], baseline]).requires_grad_()
    target = context.target[row].expand(2)
    with run_with_rules(context.evaluator, points[:1], _RULES) as (mode, run):
        scores = logit(run(points), target)
        multipliers = input_gradient(context.evaluator.model, scores.sum(), points)[0]
    _refuse_others(mode)
    values = multipliers * (context.inputs[row] - baseline)
    share = _LARGEST_GAP.get(context.evaluator.plan(points[:1]).dtype, 1e-3)
    _check_complete(values, scores.detach(), share)
    return values, scores[1].detach()


def check_rescale(model: Evaluator, inputs: Tensor) -> None:
    """Raise where the model has an operation without a rescale rule; it takes a forward pass."""
    plan = model.plan(inputs)
    if torch.float16 in (plan.dtype, model.dtype):
        raise NotApplicableError(
            "deeplift divides by differences that vanish in float16; use model.float()"
        )
    model.private_module(inputs)  # its weights are frozen, so that it is linear in the inputs alone
    if plan.backward_error or any(map(quantised, model.model.modules())):
        raise not_differentiable(model.model, plan.backward_error or "outputs without a gradient")
    if not plan.together:
        raise NotApplicableError(
            "deeplift runs an input and its baseline in one pass, but the model mixes the rows of "
            f"a pass ({plan.dropped.get('together', 'it takes one')}); use method='ig'"
        )
    with run_with_rules(model, inputs[:1], _RULES) as (mode, run):
        outputs = run(inputs[:1].clone().expand(2, *inputs.shape[1:]).clone().requires_grad_())
    if not outputs.requires_grad:
        raise not_differentiable(model.model)
    for name in own_functions(outputs):
        raise NotApplicableError(
            f"deeplift has no rule for {name}, an autograd function of the model's own; use "
            "method='ig'"
        )
    _refuse_others(mode)


def _refuse_others(mode: ActivationRules) -> None:
    """Raise where a pass called a function that has no rescale rule."""
    for call in mode.others:
        raise NotApplicableError(
            f"deeplift has no rule for {call.function} in {call.place}; use method='ig'"
        )


def _check_complete(values: Tensor, scores: Tensor, share: float) -> None:
    """Raise where values do not add up to the change of the scores `(2,)`.

    The rules have then missed an operation of the model.
    """
    change, rounding = scores[0] - scores[1], 32 * torch.finfo(scores.dtype).eps
    gap = float((to_float64(change) - to_float64(values).sum()).abs())
    size = to_float64(values).abs().sum() + change.abs()
    if gap > float(share * size + rounding * scores.abs().max()):
        raise NotApplicableError(
            f"deeplift's values miss the change of the score by {gap:.1g}: the model runs "
            "something that its rules cannot see, such as a torch.autograd.Function, compiled code "
            "or half precision; use method='ig'"
        )

"""Methods that put rules of their own in place of the derivatives of activations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from .._engine.activations import (
    POOLING,
    Activation,
    ActivationRules,
    Call,
    Rule,
    own_functions,
)
from .._engine.calls import Run
from .._engine.evaluator import Evaluator, PassCount
from .._engine.plans import MODEL_ERRORS
from .._ops.precision import to_float64
from .._validation.inputs import not_differentiable, quantised
from .._validation.references import check_references, references_for
from ..attribution import Attribution
from ..baselines import Baseline, Constant, baselines
from ..baselines.base import check_single, to_baseline
from ..diagnostics import proximity
from ..errors import NotApplicableError, first_line, require
from ..explainer import ExplainContext, Method
from ..registry import Card, Composed
from ..scores import AnyScore, logit
from ..scores import resolve as resolve_score
from .base import methods

_LARGEST_GAP = {torch.bfloat16: 5e-2}
"""By the points' dtype, 1e-3 for others, as a share of the sum of absolute values: the rule is
complete up to rounding where it sees all that runs."""
_NO_DIFFERENCE = 1e-10
"""Differences below it count as none: there the derivative stands for the quotient."""


def _guided(use: Activation, gradient: Tensor) -> Tensor:
    """Leave out what is negative, after the derivative."""
    return use.derivative(gradient).relu()


def _deconvolution(use: Activation, gradient: Tensor) -> Tensor:
    """Leave out what is negative, in place of the derivative."""
    return gradient.relu()


def _rescaled(use: Activation, gradient: Tensor) -> Tensor:
    """Scale by the quotient of the differences; the rows are an input's and a baseline's."""
    change = use.input[:1] - use.input[1:]
    slope = (use.output[:1] - use.output[1:]) / change
    return torch.where(change.abs() < _NO_DIFFERENCE, use.derivative(gradient), gradient * slope)


def _rescaled_pooling(use: Activation, gradient: Tensor) -> Tensor:
    """Scale by the quotients of max pooling, in which each window has two places.

    What a window adds lies, up to the larger of both maxima, where the input has its maximum, and
    from there where the baseline has its own.
    """
    larger = use.output.max(0, keepdim=True).values
    added = torch.cat([larger - use.output[1:], use.output[:1] - larger]) * gradient
    pool = getattr(functional, f"max_pool{use.input.ndim - 2}d_with_indices")
    settings = {key: use.settings[key] for key in use.settings if key != "return_indices"}
    with torch.no_grad():
        places = pool(use.input, **settings)[1]
    spread = torch.zeros_like(use.input).flatten(2)
    spread = spread.scatter_add(2, places.flatten(2), added.flatten(2))  # windows share places
    both = spread.sum(0, keepdim=True).view_as(use.input[:1])
    change = use.input[:1] - use.input[1:]
    flat = change.abs() < _NO_DIFFERENCE
    return torch.where(flat, use.derivative(gradient), both / change)


_ELEMENTWISE = (*("relu", "relu6", "hardtanh", "leaky_relu", "elu", "sigmoid", "tanh", "softplus"),)
_RELU_RULES: dict[str, Rule] = {"guided": _guided, "deconvolution": _deconvolution}
_RESCALE: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _rescaled),
    **dict.fromkeys(POOLING, _rescaled_pooling),
}


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT by the rescale rule: every activation passes on its difference from the baseline.

    The map adds up to f(x) - f(x'). Where the rule is not defined (GELU, layer norms, products of
    two activations) the method does not apply.

    Args:
        baseline: what the input is compared with.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Shrikumar et al. 2017, arXiv 1704.02685; Ancona et al. 2018, arXiv 1711.06104.
    """

    baseline: Baseline = field(default_factory=Constant)
    score: str = "logit"

    def __post_init__(self) -> None:
        _check_logit(self.score)
        object.__setattr__(self, "baseline", to_baseline(self.baseline))

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input: both ends go together, there and back.

        Beside them, the check takes a pass at the first input.
        """
        return self.baseline.passes + PassCount(3, 2)

    @property
    def complete(self) -> bool:
        """True: the rule passes on the whole difference."""
        return True

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the model does something that has no rescale rule."""
        check_single(self.baseline)
        self.baseline.check(model, inputs)
        _check_rescale(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        found = context.found(self.baseline)
        pairs = context.evaluator.for_each(
            len(context.inputs), lambda row: _rescale(context, row, found.values[row])
        )
        values, start = (torch.stack(column) for column in zip(*pairs, strict=True))
        return _compared(context, values, found.values, start, found.record)


@dataclass(frozen=True, eq=False)
class DeepLiftShap(Method):
    """The mean of DeepLIFT over references: Shapley values where the model is linear in between.

    `baseline` and `baseline_score` of the attribution are the means over the references; the map
    adds up to f(x) less the mean score.

    Args:
        references: `(R, *S)`, in the inputs' units.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Lundberg and Lee 2017, arXiv 1705.07874.
    """

    references: Tensor | None = None
    score: str = "logit"

    def __post_init__(self) -> None:
        check_references(self.references, optional=True)
        _check_logit(self.score)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; for one reference where none are given."""
        count = 1 if self.references is None else len(self.references)
        return PassCount(1 + 2 * count, 2 * count)

    @property
    def complete(self) -> bool:
        """True: the mean of maps that are."""
        return True

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the references do not fit, or something has no rescale rule."""
        references_for("deeplift_shap", self.references, inputs)
        _check_rescale(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        references = references_for("deeplift_shap", self.references, context.inputs)
        count = len(references)

        def mean_of(row: int) -> tuple[Tensor, Tensor]:
            pairs = [_rescale(context, row, reference) for reference in references]
            values, scores = (sum(column) for column in zip(*pairs, strict=True))
            return values / count, scores / count

        pairs = context.evaluator.for_each(len(context.inputs), mean_of)
        values, start = (torch.stack(column) for column in zip(*pairs, strict=True))
        mean = references.mean(0).expand_as(context.inputs).clone()
        return _compared(context, values, mean, start)


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient, without its negative values in the backward pass of every ReLU.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Springenberg et al. 2015, arXiv 1412.6806.
    """

    score: AnyScore = "probability"

    _name: ClassVar[str] = "guided_backprop"
    _rule: ClassVar[str] = "guided"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(2, 1)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the model has no ReLU to which the rule applies."""
        with _ruled(model, inputs[:1], self._rules) as (rules, run):
            outputs = run(inputs[:1].clone().requires_grad_())
        if not outputs.requires_grad:
            raise not_differentiable(model.model)
        if not rules.applied:
            others = dict.fromkeys(filter(None, map(_activation, rules.others)))
            raise NotApplicableError(
                f"{self._name} needs ReLU activations, the model has none (its activations: "
                f"{', '.join(others) or 'none'}); use method='gradient'"
            )

    @property
    def _rules(self) -> dict[str, Rule]:
        return dict.fromkeys(("relu", "relu6"), _RELU_RULES[self._rule])

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)

        def gradient(row: int) -> Tensor:
            point = context.inputs[row : row + 1].clone().requires_grad_()
            with _ruled(context.evaluator, point, self._rules) as (_, run):
                total = score(run(point), context.target[row : row + 1]).sum()
                return _gradient(context.evaluator.model, total, point)[0]

        values = torch.stack(context.evaluator.for_each(len(context.inputs), gradient))
        explained = score(context.outputs, context.target)
        return Attribution(
            values, context.target, explained, context.outputs, complete=self.complete
        )


@dataclass(frozen=True)
class Deconvolution(GuidedBackprop):
    """The gradient, with a ReLU of what comes back in place of every ReLU's derivative.

    Args:
        score: what is explained, by name or as a function of logits and target.

    References:
        Zeiler and Fergus 2014, arXiv 1311.2901.
    """

    _name: ClassVar[str] = "deconvolution"
    _rule: ClassVar[str] = "deconvolution"


@contextlib.contextmanager
def _ruled(
    model: Evaluator, inputs: Tensor, rules: Mapping[str, Rule]
) -> Iterator[tuple[ActivationRules, Run]]:
    """Lend one plain pass of the model under rules, and the rules' notes."""
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.model.modules()):
        raise NotApplicableError(
            "rules for activations do not reach into TorchScript; use the model that it was made "
            "from, or method='ig'"
        )
    if model.plan(inputs).reentrant:
        raise NotApplicableError(
            "rules for activations do not reach into reentrant checkpoints; use checkpoint(..., "
            "use_reentrant=False) in the model, or method='ig'"
        )
    with model.borrowed(inputs) as (module, run):
        names = {part: name for name, part in module.named_modules()}
        notes = ActivationRules(rules, names)

        def ruled(points: Tensor) -> Tensor:
            with torch.enable_grad(), notes:
                return run(points)

        yield notes, ruled


def _gradient(model: Any, total: Tensor, point: Tensor) -> Tensor:
    if not total.requires_grad:
        raise not_differentiable(model)
    try:
        (gradient,) = torch.autograd.grad(total, point, allow_unused=True)
    except MODEL_ERRORS as error:
        raise not_differentiable(model, first_line(error)) from error
    if gradient is None:
        raise not_differentiable(model, "outputs that do not depend on them")
    return gradient.detach()


def _check_logit(score: object) -> None:
    require(
        score == "logit",
        f"expected score='logit', the only one that the rescale rule explains, got {score!r}",
    )


def _check_rescale(model: Evaluator, inputs: Tensor) -> None:
    """Raise where the model does something that has no rescale rule; it takes one pass."""
    plan = model.plan(inputs)
    if torch.float16 in (plan.dtype, model.dtype):
        raise NotApplicableError(
            "deeplift divides by differences that vanish in float16; use model.float()"
        )
    model.private_module(inputs)  # linear in the inputs alone: a copy's weights are frozen
    if plan.backward_error or any(map(quantised, model.model.modules())):
        raise not_differentiable(model.model, plan.backward_error or "outputs without a gradient")
    if not plan.together:
        raise NotApplicableError(
            "deeplift runs an input and its baseline in one pass, but the model mixes the rows of "
            f"a pass ({plan.dropped.get('together', 'it takes one')}); use method='ig'"
        )
    with _ruled(model, inputs[:1], _RESCALE) as (rules, run):
        outputs = run(inputs[:1].clone().expand(2, *inputs.shape[1:]).clone().requires_grad_())
    if not outputs.requires_grad:
        raise not_differentiable(model.model)
    for name in own_functions(outputs):
        raise NotApplicableError(
            f"deeplift has no rule for {name}, an autograd function of the model's own; use "
            "method='ig'"
        )
    _refuse_others(rules)


def _refuse_others(rules: ActivationRules) -> None:
    """Raise where a pass did something that has no rescale rule."""
    for call in rules.others:
        raise NotApplicableError(
            f"deeplift has no rule for {call.function} in {call.place}; use method='ig'"
        )


_OTHERS = frozenset(
    (
        *("celu", "clamp", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
        *("mish", "prelu", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh"),
    )
)


def _activation(call: Call) -> str | None:
    """Return the name of the activation that a call is, if it is one."""
    if call.module.__module__ == "torch.nn.modules.activation":
        return call.module.__name__
    return call.function if call.function in _OTHERS else None


def _rescale(context: ExplainContext, row: int, baseline: Tensor) -> tuple[Tensor, Tensor]:
    """Return what one input's values add to the score of a baseline `(*S)`, and that score."""
    points = torch.stack([context.inputs[row], baseline]).requires_grad_()
    target = context.target[row].expand(2)
    with _ruled(context.evaluator, points[:1], _RESCALE) as (rules, run):
        scores = logit(run(points), target)
        multipliers = _gradient(context.evaluator.model, scores.sum(), points)[0]
    _refuse_others(rules)
    values, start = multipliers * (context.inputs[row] - baseline), scores[1].detach()
    share = _LARGEST_GAP.get(context.evaluator.plan(points[:1]).dtype, 1e-3)
    _check_complete(values, scores.detach(), share)
    return values, start


def _check_complete(values: Tensor, scores: Tensor, share: float) -> None:
    """Raise where values miss the change of the scores `(2,)`: part of the model was not seen."""
    change, rounding = scores[0] - scores[1], 32 * torch.finfo(scores.dtype).eps
    gap = float((to_float64(change) - to_float64(values).sum()).abs())
    allowed = (
        share * (to_float64(values).abs().sum() + change.abs()) + rounding * scores.abs().max()
    )
    if gap > float(allowed):
        raise NotApplicableError(
            f"deeplift's values miss the change of the score by {gap:.1g}: the model runs "
            "something that its rules cannot see, such as a torch.autograd.Function, compiled code "
            "or half precision; use method='ig'"
        )


def _compared(
    context: ExplainContext,
    values: Tensor,
    baseline: Tensor,
    start: Tensor,
    record: Mapping[str, Tensor] = {},
) -> Attribution:
    score = logit(context.outputs, context.target)
    attribution = Attribution(
        values=values,
        target=context.target,
        score=score,
        outputs=context.outputs,
        baseline=baseline,
        baseline_score=start,
        record=record,
    )
    return attribution.with_measured(
        completeness_gap=attribution.completeness_gap,
        score_change=score - start,
        proximity=proximity(context.inputs, baseline),
    )


methods.register(
    Composed(
        Card(
            "deeplift",
            "rules",
            "DeepLIFT, the rescale rule; of the logit, from any baseline",
            "Shrikumar et al. 2017, arXiv 1704.02685",
        ),
        DeepLift,
        {"baseline": baselines},
        {"baseline": "black"},
    )
)
methods.add(
    Card(
        "deeplift_shap",
        "rules",
        "the mean of DeepLIFT over references=(R, *S); of the logit",
        "Lundberg and Lee 2017, arXiv 1705.07874",
    ),
    DeepLiftShap,
)
methods.add(
    Card(
        "guided_backprop",
        "rules",
        "the gradient without negative values in the backward pass of ReLUs",
        "Springenberg et al. 2015, arXiv 1412.6806",
        traits=("relu",),
    ),
    GuidedBackprop,
)
methods.add(
    Card(
        "deconvolution",
        "rules",
        "the gradient with a ReLU of what comes back in place of ReLUs",
        "Zeiler and Fergus 2014, arXiv 1311.2901",
        traits=("relu",),
    ),
    Deconvolution,
)

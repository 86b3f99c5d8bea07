"""The gradient at the input, without a baseline or a path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from .._engine.balanced import AnyBalanced
from .._engine.evaluator import PassCount
from .._engine.rewriting import AttentionRule
from .._ops.precision import to_float64
from .._validation.settings import check_choice
from ..attribution import Attribution
from ..explainer import ExplainContext, Method
from ..registry import Card
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .base import methods


@dataclass(frozen=True)
class Gradient(Method):
    """The gradient of the score at the input, or input times gradient.

    Args:
        score: what is explained, by name or as a function of logits and target.
        times_input: multiply by the input; complete, from black, for linear models without bias.
        balanced: by rules that pass on all of the relevance, input x gradient, that they receive:
            deviations in norms and attention weights are constants, activations pass f(x) / x, and
            products share their gradient; "full" gives queries and keys a quarter, values a half.
            Input times gradient then adds up to a logit, up to what the model's biases contribute:
            the diagnostic `relevance_gap`, the score less the sum. The provenance lists what was
            rewritten; see docs/balanced.md.

    References:
        Simonyan et al. 2014, arXiv 1312.6034; Shrikumar et al. 2016, arXiv 1605.01713.
    """

    passes = PassCount(2, 1)

    score: AnyScore = "probability"
    times_input: bool = False
    balanced: AnyBalanced = False

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        gradient = context.gradient_of(score)
        _, scores, gradients = gradient(context.inputs.unsqueeze(0))
        values = gradients[0] * context.inputs if self.times_input else gradients[0]
        attribution = Attribution(
            values, context.target, scores[0], context.outputs, complete=self.complete
        )
        if not (self.times_input and self.balanced):
            return attribution
        gap = to_float64(scores[0]) - to_float64(values).flatten(1).sum(1)
        return attribution.with_measured(relevance_gap=gap)


def _plain(score: AnyScore = "probability", balanced: AnyBalanced = False) -> Gradient:
    return Gradient(score, balanced=balanced)


def _times_input(score: AnyScore = "probability", balanced: AnyBalanced = False) -> Gradient:
    return Gradient(score, times_input=True, balanced=balanced)


def _balanced(score: AnyScore = "logit", attention: AttentionRule = "constant") -> Gradient:
    """Build input times balanced gradient.

    Args:
        score: see `Gradient`.
        attention: "constant", where the weights of attention pass on no relevance, or "full", where
            queries and keys take a quarter of it each and values a half.
    """
    check_choice("attention", attention, get_args(AttentionRule))
    return Gradient(score, times_input=True, balanced=attention)


methods.add(
    Card(
        "gradient",
        "gradient",
        "the gradient of the score at the input",
        "Simonyan et al. 2014, arXiv 1312.6034",
    ),
    _plain,
)
methods.add(
    Card(
        "input_x_gradient",
        "gradient",
        "input times gradient",
        "Shrikumar et al. 2016, arXiv 1605.01713",
    ),
    _times_input,
)
methods.add(
    Card(
        "balanced",
        "gradient",
        "input times balanced gradient: rules for attention, norms and activations that add up",
        "Mehri et al. 2025, CVPR, arXiv 2411.16760; Achtibat et al. 2024, arXiv 2402.05602",
    ),
    _balanced,
)

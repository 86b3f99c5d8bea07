"""The gradient at the input, without a baseline or a path."""

from __future__ import annotations

from dataclasses import dataclass

from .._engine.evaluator import PassCount
from .._engine.score_gradient import ScoreGradient
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

    References:
        Simonyan et al. 2014, arXiv 1312.6034; Shrikumar et al. 2016, arXiv 1605.01713.
    """

    passes = PassCount(2, 1)

    score: AnyScore = "probability"
    times_input: bool = False

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        gradient = ScoreGradient(context.evaluator, score, context.target)
        _, scores, gradients = gradient(context.inputs.unsqueeze(0))
        values = gradients[0] * context.inputs if self.times_input else gradients[0]
        return Attribution(
            values, context.target, scores[0], context.outputs, complete=self.complete
        )


def _plain(score: AnyScore = "probability") -> Gradient:
    return Gradient(score)


def _times_input(score: AnyScore = "probability") -> Gradient:
    return Gradient(score, times_input=True)


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

"""Infidelity: does the map predict the score changes of perturbed inputs?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ..._engine.evaluator import PassCount
from ..._ops.precision import to_float64
from ..._validation.settings import TwoOrMore, instance_of
from ...scores import AnyScore
from ...scores import resolve as resolve_score
from ..base import Metric
from ..cache import settings_key
from ..context import EvalContext
from ..maps import constant, unchanged
from ..measurement import Measurement
from ..registry import metrics
from .perturbations import Draws, InfidelityPerturbation, Square, Subset, infidelity_perturbations


@dataclass(frozen=True)
class Infidelity(Metric):
    """Mean squared error of the score changes that the map predicts.

    mean_I (beta I^T A - (f(x) - f(x - I)))^2 over random changes I, with beta = 1. Every value of
    the map counts, with its sign. It is in squared units of the score: 0 is the best. A map that is
    the same everywhere gets no number: the map of zeros would else beat most.

    Args:
        perturbation: the changes; one of `unilens.metrics.infidelity_perturbations`.
        samples: how many changes are drawn.
        scaled: whether beta is the factor that suits the map best (least squares), so that maps in
            any units can be compared; its sign is free as well.
        score: the score, by name or as a function of logits and target.

    References:
        Yeh et al. 2019, "On the (in)fidelity and sensitivity of explanations", arXiv 1901.09392.
        beta as in the authors' public code and in captum.
    """

    family = "faithfulness"
    summary = "squared error of the score changes that the map predicts"
    reference = "Yeh et al. 2019, arXiv 1901.09392"
    deterministic = False
    higher_is_better = False
    bounds = (0, None)
    components = (("perturbation", infidelity_perturbations, "square"),)
    undefined_where = "the score stays the same under every perturbation"

    perturbation: Annotated[InfidelityPerturbation, instance_of(InfidelityPerturbation)] = field(
        default_factory=Square
    )
    samples: TwoOrMore = 100
    scaled: bool = False
    score: AnyScore = "probability"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(1 + self.perturbation.variants * self.samples, 0)

    @property
    def takes_groups(self) -> bool:
        """Whether the metric removes whole groups where they are given."""
        return isinstance(self.perturbation, Subset)

    def _measure(self, context: EvalContext) -> Measurement:
        breakdown, details = {}, {}
        score = resolve_score(self.score, context.evaluator)
        before = context.score_of(score, context.outputs).unsqueeze(1)
        drawn = self.perturbation(context, self.samples)
        for name, draws in drawn.items():
            predicted, scores = self._compare(context, name, draws)
            score_drop = before - scores
            still = unchanged(scores, context.inputs.dtype)
            breakdown[name] = self._value(predicted, score_drop).masked_fill(still, torch.nan)
            prefix = f"{name} " if len(drawn) > 1 else ""
            details.update({f"{prefix}predicted": predicted, f"{prefix}score_drop": score_drop})
        value = torch.stack(list(breakdown.values())).mean(0)
        value = value.masked_fill(constant(context.values), torch.nan)
        return Measurement(value, breakdown if len(breakdown) > 1 else {}, details)

    def _compare(self, context: EvalContext, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """Return I^T A and f(x - I), `(B, samples)` both."""
        score = resolve_score(self.score, context.evaluator)
        values = to_float64(context.values)
        predicted, scores = [], []
        for block in context.blocks(self.samples):
            change, inputs = draws(block)
            flat, rows = change.flatten(0, 1), len(values)

            def product(index: int, flat: Tensor = flat, rows: int = rows) -> Tensor:
                return (flat[index] * values[index % rows]).sum()

            products = context.evaluator.for_each(len(flat), product)
            predicted.append(torch.stack(products).view(-1, rows))

            def watched(inputs: Tensor = inputs) -> Tensor:
                return context.score_of(score, context.evaluator.outputs(inputs))

            key = type(self), settings_key(self, "scaled"), name, block, context.groups
            scores.append(context.once(key, watched))
        return torch.cat(predicted).T.contiguous(), torch.cat(scores).T.contiguous()

    def _value(self, predicted: Tensor, score_drop: Tensor) -> Tensor:
        beta = torch.ones_like(score_drop[:, :1])
        if self.scaled:
            along = (predicted * score_drop).sum(1, keepdim=True)
            beta = along / predicted.square().sum(1, keepdim=True)
        return (beta * predicted - score_drop).square().mean(1)


metrics.add_metric("infidelity", Infidelity)

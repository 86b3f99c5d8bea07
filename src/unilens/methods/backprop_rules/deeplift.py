"""DeepLIFT by the rescale rule, from one baseline or averaged over references."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._validation.references import References, references_for
from ...attribution import Attribution
from ...baselines import Baseline, Constant, baselines
from ...baselines.base import check_single, to_baseline
from ...diagnostics import proximity
from ...explainer import ExplainContext, Method
from ...registry import Card, Composed
from ...scores import logit
from ..base import methods
from .rescale import check_rescale, rescale

_Logit = Literal["logit"]
"""The only score that the rescale rule explains."""


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT by the rescale rule: every activation passes on its difference from the baseline.

    The map adds up to f(x) - f(x'). The method does not apply to models with operations for which
    the rule is not defined: GELU, layer norms, products of two activations.

    Args:
        baseline: what the input is compared with.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Shrikumar et al. 2017, arXiv 1704.02685; Ancona et al. 2018, arXiv 1711.06104.
    """

    complete = True

    baseline: Baseline = field(default_factory=Constant)
    score: _Logit = "logit"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", to_baseline(self.baseline))

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, of which two each run input and baseline.

        The check takes one more pass, at the first input.
        """
        return self.baseline.passes + PassCount(3, 2)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where an operation of the model has no rescale rule."""
        check_single(self.baseline)
        self.baseline.check(model, inputs)
        check_rescale(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        result = context.single_baseline(self.baseline)
        values, start = _for_rows(context, lambda row: rescale(context, row, result.values[row]))
        return _attribution(context, values, result.values, start, result.record)


@dataclass(frozen=True, eq=False)
class DeepLiftShap(Method):
    """The mean of DeepLIFT over references, which approximates Shapley values.

    The mean is exact for models that are linear between the input and every reference. `baseline`
    and `baseline_score` of the attribution are the means over the references; the map adds up to
    f(x) less the mean score.

    Args:
        references: `(R, *S)`, in the inputs' units; required.
        score: "logit", the only one: the rule ends at the model's outputs.

    References:
        Lundberg and Lee 2017, arXiv 1705.07874.
    """

    complete = True

    references: References | None = None
    score: _Logit = "logit"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; those of one reference where none are given."""
        count = 1 if self.references is None else len(self.references)
        return PassCount(1 + 2 * count, 2 * count)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the references do not fit, or an operation has no rescale rule."""
        references_for("deeplift_shap", self.references, inputs)
        check_rescale(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        references = references_for("deeplift_shap", self.references, context.inputs)

        def mean_over_references(row: int) -> tuple[Tensor, Tensor]:
            pairs = [rescale(context, row, reference) for reference in references]
            values, scores = (sum(column) for column in zip(*pairs, strict=True))
            return values / len(references), scores / len(references)

        values, start = _for_rows(context, mean_over_references)
        mean = references.mean(0).expand_as(context.inputs).clone()
        return _attribution(context, values, mean, start)


def _for_rows(
    context: ExplainContext, explain_row: Callable[[int], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Return the values `(B, *S)` and baseline scores `(B,)` of all rows of a batch."""
    pairs = context.evaluator.for_each(len(context.inputs), explain_row)
    values, start = (torch.stack(column) for column in zip(*pairs, strict=True))
    return values, start


def _attribution(
    context: ExplainContext,
    values: Tensor,
    baseline: Tensor,
    baseline_score: Tensor,
    record: Mapping[str, Tensor] = {},
) -> Attribution:
    attribution = Attribution(
        values=values,
        target=context.target,
        score=logit(context.outputs, context.target),
        outputs=context.outputs,
        baseline=baseline,
        baseline_score=baseline_score,
        record=record,
    )
    return attribution.with_measured(
        **attribution.score_diagnostics, proximity=proximity(context.inputs, baseline)
    )


methods.register(
    Composed(
        Card(
            "deeplift",
            "rules",
            "DeepLIFT by the rescale rule, of the logit, from any baseline",
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
        "the mean of DeepLIFT over references=(R, *S), of the logit",
        "Lundberg and Lee 2017, arXiv 1705.07874",
    ),
    DeepLiftShap,
)

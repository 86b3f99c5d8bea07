"""Does a part that the score depends on more have more of the map? For inputs made of parts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import PassCount
from .._ops.correlation import spearman
from ..metrics.maps import Reduction
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .base import Metric
from .context import EvalContext
from .measurement import Measurement
from .registry import metrics


@dataclass(frozen=True)
class SingleDeletion(Metric):
    """Correlate the relevance of an input's parts with the score lost without each.

    corr_k( sum_{i in S_k} A_i, f(x) - f(x^k) ), Spearman, over the parts: x^k is the input without
    part k, and S_k the positions where it differs from x. A part without such positions is left
    out. What is behind a part is the caller's to know: x^k is rendered anew, and so lies in the
    data's distribution where the model was trained on inputs that lack parts. `details` has both
    sides `(B, P)`.

    Args:
        reduction: "sum", values summed over channels, or "abs", sums of absolute values.
        score: the score, by name or as a function of logits and target.

    References:
        Hesse et al. 2023, arXiv 2308.06248, section 4 (single deletion; there scaled to [0, 1]).
    """

    family = "localisation"
    summary = "correlation of the relevance of parts with the score lost without each"
    reference = "Hesse et al. 2023, arXiv 2308.06248"
    bounds = (-1, 1)
    needs = ("without_parts",)
    undefined_where = "the parts have the same relevance, or cost the score the same"

    reduction: Reduction = "sum"
    score: AnyScore = "logit"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input of five parts."""
        return PassCount(1 + 5, 0)

    def _measure(self, context: EvalContext) -> Measurement:
        without = context.without_parts
        assert without is not None
        score = resolve_score(self.score, context.evaluator)
        before = context.score_of(score, context.outputs)
        after = [
            context.score_of(score, context.evaluator.outputs(without[:, [*block]].movedim(1, 0)))
            for block in context.blocks(without.shape[1])
        ]
        score_drop = before.unsqueeze(1) - torch.cat(after).T
        differs = without != context.inputs.unsqueeze(1)
        own = (differs.any(2) if context.inputs.ndim > 2 else differs).flatten(2)
        relevance = context.reduce_channels(self.reduction).flatten(1).unsqueeze(1)
        sums = (relevance * own).sum(2)
        rows = zip(sums, score_drop, own.any(2), strict=True)
        values = [_correlation(has[shown], lost[shown]) for has, lost, shown in rows]
        return Measurement(
            torch.stack(values), details={"part_sums": sums, "score_drop": score_drop}
        )


def _correlation(sums: Tensor, score_drop: Tensor) -> Tensor:
    """Return the rank correlation `()` over the parts `(P,)`; NaN of fewer than two."""
    return spearman(sums, score_drop) if len(sums) > 1 else sums.new_tensor(torch.nan)


metrics.add_metric("single_deletion", SingleDeletion)

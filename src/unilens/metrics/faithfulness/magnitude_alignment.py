"""Magnitude aligned scoring: insertion and deletion, less what the magnitudes do not explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..context import EvalContext
from ..maps import unchanged
from ..registry import metrics
from .imputers import ImputeFunction
from .removal import RemovalCurve, ranks_and_counts, removed_together


@dataclass(frozen=True)
class AlignedCurve(RemovalCurve):
    """The base of MAS: the curve of insertion or deletion, penalised where the map's mass differs.

    The response r is the score between that of the input with every position removed, 0, and that
    of the input, 1, clipped and made monotone. The mass m is the share of the positive
    relevance that is in the image. The penalty |r - m| counts against the map at every step.
    Undefined where the score is no higher at the input, and where nothing is positive. It shares
    its passes with insertion or deletion of the same settings, where there is a cache.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`; the paper takes maps without negative values, as "abs" does.
        score: see `Removal`.
        step: see `RemovalCurve`.
        cells: see `RemovalCurve`.
    """

    reference = "Walker et al. 2024, Attribution Quality Metrics with Magnitude Alignment, IJCAI"
    bounds = (0, 1)
    undefined_where = (
        "the score is no higher at the input than without any of it, or nothing in the map is "
        "positive"
    )

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        area, shown = super()._with_imputer(context, impute)
        response, defined = self._response(shown["curve"], context.inputs.dtype)
        mass = self._mass(context, shown["fractions"][0])
        penalty = (response - mass).abs()
        aligned = (response - penalty if self.inserts else response + penalty).clamp(0, 1)
        value = torch.trapezoid(aligned, shown["fractions"].to(aligned))
        undefined = area.isnan() | ~defined
        parts = {"response": response, "mass": mass, "aligned": aligned}
        return value.masked_fill(undefined, torch.nan), {**shown, **parts}

    def _response(self, curve: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return the response `(B, n)`, and where the score is higher at the input `(B,)`."""
        empty, whole = (
            curve[:, end].unsqueeze(1) for end in ((0, -1) if self.inserts else (-1, 0))
        )
        response = ((curve - empty) / (whole - empty)).clamp(0, 1)
        held = response.cummax(1) if self.inserts else response.cummin(1)
        same = unchanged(torch.cat([empty, whole], dim=1), dtype)
        return held.values, (whole > empty).squeeze(1) & ~same

    def _mass(self, context: EvalContext, fractions: Tensor) -> Tensor:
        """Return the share of the positive relevance in the image, `(B, n)`; NaN where none is."""
        relevance = context.reduce_channels(self.reduction)
        groups = removed_together(context, self.cells)
        ranks, counts, _ = ranks_and_counts(context, groups, relevance, fractions.cpu())
        if groups is not None:
            relevance = groups.spread(groups.sums(relevance), relevance)
        positive = relevance.clamp(min=0)
        counts = counts.expand(-1, len(ranks), *counts.shape[2:])
        went = torch.stack(  # one input at a time: how a sum is split depends on how many there are
            [
                torch.stack([values[order < count].sum() for count in own]) / values.sum()
                for values, order, own in zip(positive, ranks, counts.unbind(1), strict=True)
            ]
        )
        return went if self.inserts else 1 - went


class MasInsertion(AlignedCurve):
    """MAS insertion: the area under the response less the penalty while positions come in.

    trapezoid of clamp(r - |r - m|, 0, 1), the most relevant positions first; see `AlignedCurve`.

    References:
        Walker et al. 2024, Attribution Quality Metrics with Magnitude Alignment, IJCAI.
    """

    summary = "insertion, penalised where the score does not follow the map's magnitudes"

    inserts = True


class MasDeletion(AlignedCurve):
    """MAS deletion: the area under the response plus the penalty while positions are removed.

    trapezoid of clamp(r + |r - m|, 0, 1), the most relevant positions first; see `AlignedCurve`.

    References:
        Walker et al. 2024, Attribution Quality Metrics with Magnitude Alignment, IJCAI.
    """

    summary = "deletion, penalised where the score does not follow the map's magnitudes"
    higher_is_better = False

    inserts = False


metrics.add_metric("mas_insertion", MasInsertion)
metrics.add_metric("mas_deletion", MasDeletion)

"""Non-sensitivity: is the map zero exactly where the score does not depend on the input?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops.precision import to_float64
from ..._validation.settings import TwoOrMore, UnitInterval
from ...scores import resolve as resolve_score
from ..context import EvalContext
from ..maps import constant, unchanged
from ..registry import metrics
from .imputers import ImputeFunction
from .removal import Removal, cells_of

_PHOTOGRAPH = 224 * 224


@dataclass(frozen=True)
class NonSensitivity(Removal):
    """The share of cells at which only one of the two is zero: the map, or what its removal does.

    |Z_A xor Z_f| / n: Z_A the cells whose relevance is at most `tolerance` of the largest
    magnitude, Z_f those without which the score changes by at most `tolerance` of the largest
    change, or by no more than rounding. Each cell is removed alone. It is the axiom of the dummy
    feature as a number; the papers count the features.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`.
        cells: those of a grid of cells x cells are removed, one at a time; None for single
            positions.
        tolerance: below which share of the largest a value counts as 0.

    References:
        Nguyen & Martinez 2020, arXiv 2007.07584.
    """

    summary = "share of cells where the map is zero and the score depends on them, or the reverse"
    reference = "Nguyen & Martinez 2020, arXiv 2007.07584"
    higher_is_better = False
    bounds = (0, 1)
    traits = ("passes_by_size",)
    undefined_where = "the score stays the same, whichever cell is removed"

    cells: TwoOrMore | None = 9
    tolerance: UnitInterval = 1e-5

    @property
    def _points(self) -> int:
        return _PHOTOGRAPH if self.cells is None else self.cells**2

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        cells = cells_of(context, self.cells, type(self).cells)
        numbers = torch.arange(cells.count, device=cells.index.device)
        index = cells.index.expand(len(context.inputs), *cells.index.shape[1:])

        def kept(block: range) -> Tensor:
            removed = numbers[block.start : block.stop].view(-1, *(1,) * index.ndim)
            return index != removed

        before = context.score_of(resolve_score(self.score, context.evaluator), context.outputs)
        key = type(self), impute, self.cells, self.score
        scores = context.once(key, lambda: self._watch(context, impute, cells.count, kept))
        changes = (scores - before.unsqueeze(1)).abs()
        relevance = context.reduce_channels(self.reduction)
        rounding = 8 * torch.finfo(context.inputs.dtype).eps * before.abs().unsqueeze(1)
        without = self._zero(cells.sums(relevance).abs())
        indifferent = self._zero(changes) | (changes <= rounding)
        value = to_float64(without ^ indifferent).mean(1)
        same = unchanged(torch.cat([scores, before.unsqueeze(1)], dim=1), context.inputs.dtype)
        shown = {"map_is_zero": without, "score_is_indifferent": indifferent}
        return value.masked_fill(constant(relevance) | same, torch.nan), shown

    def _zero(self, magnitudes: Tensor) -> Tensor:
        """Return which of the magnitudes `(B, n)` are 0 beside the largest."""
        return magnitudes <= self.tolerance * magnitudes.amax(1, keepdim=True)


metrics.add_metric("non_sensitivity", NonSensitivity)

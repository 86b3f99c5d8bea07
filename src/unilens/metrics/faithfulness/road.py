"""ROAD and sensitivity-n: removal at several fractions, one number for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ..._validation.settings import Check, TwoOrMore, check_fraction
from ...errors import require
from ..context import EvalContext
from ..maps import constant, ranking, unchanged
from ..registry import metrics
from .imputers import AnyImputer, ImputeFunction
from .removal import MuFidelity, Removal, counts_of


def _check_fractions(name: str, fractions: Any) -> None:
    several = isinstance(fractions, (tuple, list)) and bool(fractions)
    require(several, f"expected {name} to be several numbers, got {fractions!r}")
    for fraction in fractions:
        check_fraction(name, fraction)


Fractions = Annotated[tuple[float, ...], Check(_check_fractions)]
"""A setting: several numbers above 0 and below 1."""


@dataclass(frozen=True)
class Road(Removal):
    """Compare the scores without the least and without the most relevant positions.

    mean_p (f(x without the p least relevant) - f(x without the p most relevant)) / 2 over fractions
    p of the positions, with local inpainting, so that the shape of the hole tells little. Equally
    relevant positions go in random order. Nothing is retrained. It departs from the paper in
    watching the score of one input, where the paper watches the accuracy over a data set: the
    combined form of Gildenblat's pytorch-grad-cam.
    Without the half, the area between the two curves is the symmetric relevance gain, or area
    between perturbation curves.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`.
        fractions: of the positions that are removed.

    References:
        Rong et al. 2022, "A consistent and efficient evaluation strategy for attribution methods",
        arXiv 2202.00449. The area between the curves: Blücher et al. 2024, arXiv 2401.06654.
    """

    summary = "score without the least relevant, less that without the most relevant, inpainted"
    reference = "Rong et al. 2022, arXiv 2202.00449"

    imputer: AnyImputer = "inpaint"
    fractions: Fractions = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)

    @property
    def _points(self) -> int:
        return 2 * len(self.fractions)

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        relevance = context.reduce_channels(self.reduction)
        ranks = ranking(relevance, context.generators())
        fractions = torch.tensor(self.fractions, dtype=torch.float64)
        counts = counts_of(fractions, ranks)
        first = torch.cat([counts, torch.zeros_like(counts)])
        last = torch.cat([torch.full_like(counts, ranks[0].numel()), ranks[0].numel() - counts])

        def kept(block: range) -> Tensor:
            here = slice(block.start, block.stop)
            return (ranks >= first[here]) & (ranks < last[here])

        scores = self._watch(context, impute, self._points, kept)
        most, least = (one.contiguous() for one in scores.chunk(2, dim=1))
        undefined = constant(relevance) | unchanged(scores, context.inputs.dtype)
        value = ((least - most) / 2).mean(1).masked_fill(undefined, torch.nan)
        shown = {"most_relevant_removed": most, "least_relevant_removed": least}
        return value, {**shown, "fractions": fractions.to(most).expand_as(most)}


@dataclass(frozen=True)
class SensitivityN(Removal):
    """Correlate sums of attributions with the score lost, for subsets of several sizes.

    mean_n corr_S( sum_{i in S} A_i, f(x) - f(x with S impute) ), Pearson, over random subsets S of
    n positions. Subsets depend on the seed and the input alone, and those of one size lie inside
    those of the next. Undefined where it is for one of the sizes.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`.
        fractions: of the cells that a subset removes; the paper goes from one pixel to most of them
            in even steps of the logarithm.
        subsets: how many of each size.
        cells: positions are removed in whole cells of a grid of cells x cells; None for single
            positions, as in the paper.

    References:
        Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods for
        deep neural networks", arXiv 1711.06104.
    """

    summary = "correlation of sums with the score lost, mean over sizes of the subsets"
    reference = "Ancona et al. 2018, arXiv 1711.06104"
    bounds = (-1, 1)
    undefined_where = "the score or the map stays the same for subsets of one of the sizes"

    fractions: Fractions = (0.01, 0.03, 0.1, 0.3, 0.8)
    subsets: TwoOrMore = 100
    cells: TwoOrMore | None = None

    @property
    def _points(self) -> int:
        return self.subsets * len(self.fractions)

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        each = torch.stack([self._of_size(size, context, impute) for size in self.fractions], dim=1)
        fractions = torch.tensor(self.fractions, dtype=torch.float64).to(each)
        shown = {"correlations": each, "fractions": fractions.expand_as(each)}
        return each.mean(1), shown

    def _of_size(self, fraction: float, context: EvalContext, impute: ImputeFunction) -> Tensor:
        """Return the correlation `(B,)` over subsets of one size."""
        at = MuFidelity(
            reduction=self.reduction,
            score=self.score,
            cells=self.cells,
            fraction=fraction,
            subsets=self.subsets,
            correlation="pearson",
        )
        return at._with_imputer(context, impute)[0]


metrics.add_metric("road", Road)
metrics.add_metric("sensitivity_n", SensitivityN)

"""Faithfulness by removal: does the score fall where relevant pixels are removed?"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..._engine.evaluator import PassCount
from ..._ops.correlation import pearson, spearman
from ..._ops.random import uniform
from ..._ops.spatial import grid_cell_index
from ..._validation.settings import Fraction, TwoOrMore, UnitInterval, one_of
from ...errors import require
from ...groups.base import Groups
from ...metrics.maps import Reduction
from ...scores import AnyScore
from ...scores import resolve as resolve_score
from ..base import Metric
from ..cache import settings_key
from ..context import EvalContext
from ..maps import constant, ranking, unchanged
from ..measurement import Measurement
from ..registry import metrics
from .imputers import AnyImputer, ImputeFunction, impute_function, resolve_imputers

_OF_THE_MAP = ("imputer", "reduction", "correlation", "absolute")
"""Settings of MuFidelity without influence on its scores, beside the imputing function itself."""
CORRELATIONS = {"spearman": spearman, "pearson": pearson}


@dataclass(frozen=True)
class Removal(Metric):
    """The base of metrics that remove positions and measure the score.

    Args:
        imputer: what replaces removed positions: one of `unilens.metrics.imputers`, by name or as
            an object, or several; then `breakdown` has each, and the value is their mean.
        reduction: "sum", values summed over channels, or "abs", sums of absolute values.
        score: the score, by name or as a function of logits and target.
    """

    family = "faithfulness"
    deterministic = False
    undefined_where = "the score stays the same, whatever is removed"

    imputer: AnyImputer = "black"
    reduction: Reduction = "sum"
    score: AnyScore = "probability"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(1 + len(resolve_imputers(self.imputer)) * self._points, 0)

    @property
    @abstractmethod
    def _points(self) -> int:
        """How many points each imputer takes."""

    @abstractmethod
    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the values `(B,)` with one imputer, and the details."""

    def _watch(
        self,
        context: EvalContext,
        impute: ImputeFunction,
        count: int,
        kept: Callable[[range], Tensor],
    ) -> Tensor:
        """Return the scores `(B, count)`; `kept` gives the positions left `(n, B, *spatial)`."""
        score, found = resolve_score(self.score, context.evaluator), []
        for block in context.blocks(count):
            outputs = context.evaluator.outputs(impute(kept(block)))
            found.append(context.score_of(score, outputs))
        return torch.cat(found).T.contiguous()

    def _measure(self, context: EvalContext) -> Measurement:
        chosen = resolve_imputers(self.imputer)
        breakdown, details = {}, {}
        for name, imputer in chosen.items():
            breakdown[name], found = self._with_imputer(context, impute_function(imputer, context))
            prefix = f"{name} " if len(chosen) > 1 else ""
            details.update({prefix + key: value for key, value in found.items()})
        mean = torch.stack(list(breakdown.values())).mean(0)
        return Measurement(mean, breakdown if len(breakdown) > 1 else {}, details)


@dataclass(frozen=True)
class MuFidelity(Removal):
    """Correlate the relevance of random subsets with the score lost without them.

    corr_S( sum_{i in S} A_i, f(x) - f(x with S impute) ), the correlation over random subsets S of
    one size. Subsets depend on the seed and the input alone: all maps are judged by the same
    subsets.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`.
        cells: positions are removed in whole cells of a grid of cells x cells; None for single
            positions. Cells of a table or signal are runs of neighbours. Groups take their place.
        fraction: of the cells that each subset removes.
        subsets: how many random subsets are drawn.
        correlation: "spearman" or "pearson".
        absolute: whether the value is the correlation's absolute value, as in table 2 of Choi et
            al.; it rewards maps that are wrong throughout.

    References:
        Bhatt et al. 2020, arXiv 2005.00631, eq. 1 (of pixels, Pearson). Cells, fraction, number
        and rank correlation as in Fel et al. 2021, arXiv 2111.04138, and Choi et al. 2025, arXiv
        2410.08069, who leave them open.
    """

    summary = "correlation of the relevance of subsets with the score lost without them"
    reference = "Bhatt et al. 2020, arXiv 2005.00631"
    bounds = (-1, 1)

    cells: TwoOrMore | None = 9
    fraction: Fraction = 0.2
    subsets: TwoOrMore = 200
    correlation: Annotated[str, one_of(CORRELATIONS)] = "spearman"
    absolute: bool = False

    @property
    def _points(self) -> int:
        return self.subsets

    @property
    def takes_groups(self) -> bool:
        """Whether the metric removes and ranks whole groups where they are given."""
        return True

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        cells = cells_of(context, self.cells, type(self).cells)
        removed = draw_subsets(context, self.subsets, cells, self.fraction)
        before = context.score_of(resolve_score(self.score, context.evaluator), context.outputs)

        def kept(block: range) -> Tensor:
            return ~members(removed[block.start : block.stop], cells)

        scores = context.once(
            (type(self), impute, settings_key(self, *_OF_THE_MAP), context.groups),
            lambda: self._watch(context, impute, self.subsets, kept),
        )
        score_drop = before.unsqueeze(1) - scores
        relevance = context.reduce_channels(self.reduction)
        sums = pad(cells.sums(relevance).nan_to_num(), (0, 1))  # of no cell: 0
        attributed = sums.gather(1, removed.movedim(1, 0).flatten(1)).view(
            len(sums), *removed.shape[::2]
        )
        value = CORRELATIONS[self.correlation](attributed.sum(-1), score_drop)
        undefined = constant(relevance) | unchanged(scores, context.inputs.dtype)
        value = value.masked_fill(undefined, torch.nan)
        return value.abs() if self.absolute else value, {
            "attributed": attributed.sum(-1),
            "score_drop": score_drop,
        }


def cells_of(context: EvalContext, cells: int | None, default: int | None) -> Groups:
    """Return what is removed as one: the groups that were given, or the cells of a grid."""
    if context.groups is not None:
        require(
            cells == default,
            f"expected no cells beside groups, which are removed as they are, got {cells}; leave "
            "one of them out",
        )
        return context.groups
    index = grid_cell_index(context.spatial_shape, cells).to(context.inputs.device)
    return Groups(index[None], int(index.max()) + 1)


def removed_together(context: EvalContext, cells: int | None) -> Groups | None:
    """Return what goes as one: groups or cells; None where each position goes alone."""
    return context.groups if cells is None else cells_of(context, cells, None)


def draw_subsets(context: EvalContext, subsets: int, cells: Groups, fraction: float) -> Tensor:
    """Return which of the cells each random subset holds `(subsets, B, size)`.

    Where inputs differ in their number of cells, some entries have the number of no cell, G.
    """
    draws = []
    for own, generator in zip(cells.own(len(context.inputs)), context.generators(), strict=True):
        count = len(own)
        size = max(1, round(fraction * count))
        require(size < count, f"expected fraction to leave one of {count} cells, got {fraction}")
        draws.append(own.cpu()[uniform((subsets, count), generator).topk(size).indices])
    most = max(draw.shape[1] for draw in draws)
    padded = [pad(draw, (0, most - draw.shape[1]), value=cells.count) for draw in draws]
    return torch.stack(padded, dim=1).to(context.inputs.device)


def counts_of(fractions: Tensor, ranks: Tensor) -> Tensor:
    """Return fractions `(n,)` as numbers of positions, to compare with ranks `(B, *spatial)`."""
    counts = (fractions * ranks[0].numel()).round().to(ranks)
    return counts.view(-1, *(1,) * ranks.ndim)


def members(chosen: Tensor, cells: Groups) -> Tensor:
    """Return which positions lie in cells `(n, B, *spatial)`, from their numbers `(n, B, size)`."""
    shape = (*chosen.shape[:2], cells.count + 1)
    removed = torch.zeros(shape, dtype=torch.bool, device=chosen.device).scatter_(2, chosen, True)
    if len(cells.index) == 1:
        return removed[..., cells.index[0]]
    at = cells.index.flatten(1).expand(len(chosen), -1, -1)
    return removed.gather(2, at).view(*chosen.shape[:2], *cells.index.shape[1:])


def ranks_and_counts(
    context: EvalContext, groups: Groups | None, relevance: Tensor, fractions: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a map orders: ranks, how many go at each fraction, and where it has no order.

    Args:
        context: whose generators order what is equally relevant.
        groups: of positions that go as one; None where each goes alone.
        relevance: `(B, *spatial)`.
        fractions: `(n,)`.

    Returns:
        The rank of each position, or of its group, `(B, *spatial)`; the numbers, which broadcast to
        `(n, B, *spatial)`; and which maps are constant `(B,)`.
    """
    if groups is None:
        ranks = ranking(relevance, context.generators())
        return ranks, counts_of(fractions, ranks), constant(relevance)
    sums, own = groups.sums(relevance), groups.own(len(relevance))
    ranks = torch.empty_like(sums, dtype=torch.long)
    no_order = torch.empty_like(sums[:, 0], dtype=torch.bool)
    for row, (numbers, generator) in enumerate(zip(own, context.generators(), strict=True)):
        known = sums[row : row + 1, numbers]
        ranks[row, numbers] = ranking(known, [generator])[0]
        no_order[row] = constant(known)[0]
    count = torch.tensor([len(numbers) for numbers in own])
    counts = (fractions.unsqueeze(1) * count).round().to(ranks)
    at = groups.of(relevance).flatten(1)
    return (
        ranks.gather(1, at).view(relevance.shape),
        counts.view(*counts.shape, *(1,) * (relevance.ndim - 1)),
        no_order,
    )


@dataclass(frozen=True)
class RemovalCurve(Removal):
    """The base of insertion and deletion: the score as positions go in the map's order.

    Equally relevant positions go in random order. The curve is undefined where all of them do, and
    where the score never changes.

    Args:
        imputer: see `Removal`.
        reduction: see `Removal`.
        score: see `Removal`.
        step: the fraction of the positions, cells or groups that goes at a time.
        cells: positions go in whole cells of a grid of cells x cells, such as the patches of a
            vision transformer; None for single positions. Groups take their place.
        tolerance: of flat parts, as a share of the difference between the scores of the input and
            of the input with everything removed. Points are measured by halving the curve, and a
            part whose ends differ by less is a straight line. 0 measures every point.
    """

    inserts: ClassVar[bool]
    """Whether positions come in, in place of being removed."""

    step: Fraction = 0.1
    cells: TwoOrMore | None = None
    tolerance: UnitInterval = 0.0

    @property
    def takes_groups(self) -> bool:
        """Whether the metric removes and ranks whole groups where they are given."""
        return True

    @property
    def _points(self) -> int:
        return math.ceil(1 / self.step - 1e-9)

    def _with_imputer(
        self, context: EvalContext, impute: ImputeFunction
    ) -> tuple[Tensor, dict[str, Tensor]]:
        relevance = context.reduce_channels(self.reduction)
        fractions = (torch.arange(self._points + 1, dtype=torch.float64) * self.step).clamp(max=1)
        groups = removed_together(context, self.cells)
        ranks, counts, no_order = ranks_and_counts(context, groups, relevance, fractions)

        def scores_at(points: Sequence[int]) -> Tensor:
            def kept(block: range) -> Tensor:
                went = ranks < counts[list(points[block.start : block.stop])]
                return went if self.inserts else ~went

            return self._watch(context, impute, len(points), kept)

        score = resolve_score(self.score, context.evaluator)
        whole = context.score_of(score, context.outputs)
        empty = context.once(  # the same for all maps
            ("everything removed", impute, self.score),
            lambda: scores_at([0 if self.inserts else self._points])[:, 0],
        )
        ends = (empty, whole) if self.inserts else (whole, empty)
        values = context.once_per_map(
            ("curve", self.inserts, impute, settings_key(self, "imputer"), context.groups),
            lambda: self._between(ends, scores_at),
        )
        area = torch.trapezoid(values, fractions.to(values.device))
        undefined = no_order | unchanged(values, context.inputs.dtype)
        shown = {"curve": values, "fractions": fractions.expand_as(values)}
        return area.masked_fill(undefined, torch.nan), shown

    def _between(
        self, ends: tuple[Tensor, Tensor], scores_at: Callable[[Sequence[int]], Tensor]
    ) -> Tensor:
        """Return the curve `(B, n + 1)` from its ends, each `(B,)`, and the scores at its points.

        What is interpolated in one row does not depend on the others.
        """
        first, last = ends
        if not self.tolerance:
            inner = range(1, self._points)
            between = [scores_at(inner)] if inner else []
            return torch.cat([first[:, None], *between, last[:, None]], dim=1)
        curve = {0: first, self._points: last}
        least = self.tolerance * (last - first).abs()
        spans = [(0, self._points)]
        while spans := [(low, high) for low, high in spans if high - low > 1]:
            flat = [(curve[high] - curve[low]).abs() < least for low, high in spans]
            middles = [(low + high) // 2 for low, high in spans]
            asked = [at for at, still in zip(middles, flat, strict=True) if not still.all()]
            found = dict(zip(asked, scores_at(asked).unbind(1), strict=True)) if asked else {}
            for (low, high), middle, still in zip(spans, middles, flat, strict=True):
                share = (middle - low) / (high - low)
                line = curve[low] + share * (curve[high] - curve[low])
                curve[middle] = torch.where(still, line, found.get(middle, line))
            halves = zip(spans, middles, strict=True)
            spans = [half for (low, high), at in halves for half in ((low, at), (at, high))]
        return torch.stack([curve[point] for point in range(self._points + 1)], dim=1)


class Insertion(RemovalCurve):
    """Insertion: the area under the score while positions come in, the most relevant first.

    References:
        Petsiuk et al. 2018, arXiv 1806.07421.
    """

    summary = "area under the score while positions come in, the most relevant first"
    reference = "Petsiuk et al. 2018, arXiv 1806.07421"

    inserts = True


class Deletion(RemovalCurve):
    """Deletion: the area under the score while positions are removed, the most relevant first.

    References:
        Petsiuk et al. 2018, arXiv 1806.07421.
    """

    summary = "area under the score while positions are removed, the most relevant first"
    reference = "Petsiuk et al. 2018, arXiv 1806.07421"
    higher_is_better = False

    inserts = False


metrics.add_metric("mu_fidelity", MuFidelity)
metrics.add_metric(
    "mu_fidelity_abs",
    MuFidelity,
    settings={"absolute": True},
    summary="the absolute value of mu_fidelity, as in the paper",
    reference="Choi et al. 2025, arXiv 2410.08069, table 2",
    bounds=(0, 1),
)
metrics.add_metric("insertion_auc", Insertion)
metrics.add_metric("deletion_auc", Deletion)

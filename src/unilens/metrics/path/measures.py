"""Metrics of an attribution's path from its baseline to the input."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from ..._engine.evaluator import PassCount
from ..._ops.precision import to_float64
from ..._validation.settings import Count, check_count
from ...attribution import Attribution
from ...baselines import Baseline, Constant, to_baseline
from ...baselines.base import check_single
from ...baselines.constant import FixedValues
from ...diagnostics import Trace
from ...diagnostics import measures as diagnostics
from ...errors import NotApplicableError, require
from ...explainer import Method
from ...methods.path_diagnostics import maps_at
from ...outputs import LOGITS
from ...path_attribution import PathAttribution
from ...scores import AnyScore
from ..base import Metric
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from ..similarities import Similarity, Spearman


@dataclass(frozen=True)
class PathMetric(Metric):
    """The base of metrics of the path from a baseline.

    The path is the attribution's own. Where the attribution has only a baseline, or one is given
    here, it is the straight line from there.

    Args:
        baseline: where a straight line begins, by name or as an object of `unilens.baselines`, so
            that maps of other libraries can be judged too; None for the attribution's own path.
        score: what is followed along such a line, by name or as a function of logits and target.
        n_steps: how many points on such a line.
    """

    family = "path"
    needs = ("path",)

    baseline: str | Baseline | None = None
    score: AnyScore = "probability"
    n_steps: Count = 15

    def __post_init__(self) -> None:
        if self._own is not None:
            check_single(self._own)
        self._line(self._own)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input: those of a straight line, if it is walked."""
        return PassCount(1, 0) + self._line(self._own).passes

    def _check(self, context: EvalContext) -> None:
        if self.baseline is None:
            super()._check(context)

    @property
    def _own(self) -> Baseline | None:
        return None if self.baseline is None else to_baseline(self.baseline)

    def _line(self, baseline: Baseline | None) -> PathAttribution:
        return PathAttribution(
            baseline or Constant(), rule="midpoint", n_steps=self.n_steps, score=self.score
        )

    def _walked(self, context: EvalContext) -> Attribution:
        """Return the attribution of the path that is judged; its values are not the map's."""
        known, baseline = context.attribution, self._own
        if baseline is None:
            assert known is not None
            if known.trace is not None:
                return known
            assert known.baseline is not None
            baseline = FixedValues(known.baseline)
        line = self._line(baseline)
        begin = context.evaluator, context.inputs, context.target
        return context.once(line, lambda: line(*begin, seed=context.seed))


def _nothing_moves(trace: Trace, context: EvalContext) -> Tensor:
    """Return where the score is the same all the way and the map is zero `(B,)`."""
    still = (trace.score == trace.score[:1]).all(0)
    return still & (context.values == 0).flatten(1).all(1)


@dataclass(frozen=True)
class CompletenessGap(PathMetric):
    """Say how much of the change of the score the map does not account for.

    |f(x) - f(x') - sum_i A_i|, in units of the score. NaN for maps that are not meant to add up
    (`Attribution.complete`), and where map and score change by nothing at all.

    Args:
        baseline: see `PathMetric`; its score replaces f(x').
        score: see `PathMetric`; it must be the one that the map explains.
        n_steps: see `PathMetric`; not used.
        relative: whether the gap is divided by |f(x) - f(x')|; then NaN where the score does not
            change.

    References:
        Sundararajan et al. 2017, arXiv 1703.01365, section 3: the axiom of completeness.
    """

    summary = "how much of the change of the score the map leaves out"
    reference = "Sundararajan et al. 2017, arXiv 1703.01365"
    higher_is_better = False
    bounds = (0, None)
    undefined_where = "the method's maps are not meant to add up, or the score does not change"

    n_steps: int = 1
    relative: bool = False

    def _measure(self, context: EvalContext) -> Measurement:
        known = context.attribution
        own = self.baseline is None and known is not None and known.baseline_score is not None
        found = cast(Attribution, known) if own else self._walked(context)
        assert found.baseline_score is not None
        change = to_float64(found.score) - to_float64(found.baseline_score)
        added = to_float64(context.values).flatten(1)
        gap = (change - torch.stack([one.sum() for one in added])).abs()
        if self.relative:
            gap = torch.where(change == 0, torch.nan, gap / change.abs())
        undefined = (change == 0) & (added == 0).all(1)
        if known is not None and not known.complete:
            undefined = torch.ones_like(undefined)
        return Measurement(gap.masked_fill(undefined, torch.nan), {"score_change": change})


@dataclass(frozen=True)
class Monotonicity(PathMetric):
    """Correlate the place on the path with the model's confidence there: Spearman.

    1 where the confidence in the target rises all the way from the baseline to the input; NaN where
    it never changes.

    Args:
        baseline: see `PathMetric`.
        score: see `PathMetric`.
        n_steps: see `PathMetric`.

    References:
        Choi et al. 2025, arXiv 2410.08069, table 1.
    """

    summary = "whether the confidence rises all the way from the baseline"
    reference = "Choi et al. 2025, arXiv 2410.08069, table 1"
    bounds = (-1, 1)
    undefined_where = "the confidence stays the same all along the path"

    def _measure(self, context: EvalContext) -> Measurement:
        trace = cast(Trace, self._walked(context).trace)
        details = {"fractions": trace.fraction.T, "confidence": trace.confidence.T}
        return Measurement(diagnostics.monotonicity(trace), {}, details)


@dataclass(frozen=True)
class ConfidenceChange(PathMetric):
    """Say how much less sure the model is at the baseline, relative to the input.

    (F(x') - F(x)) / F(x), F the probability of the target: -1 where the baseline says nothing
    about it, 0 where the model is as sure as at the input. NaN for a model whose outputs have no
    probabilities, and where neither score nor map says anything.

    Args:
        baseline: see `PathMetric`.
        score: see `PathMetric`; not used.
        n_steps: see `PathMetric`; not used.

    References:
        Choi et al. 2025, arXiv 2410.08069, table 7.
    """

    summary = "how much less sure the model is at the baseline"
    reference = "Choi et al. 2025, arXiv 2410.08069, table 7"
    higher_is_better = False
    bounds = (-1, None)
    undefined_where = "the outputs have no probabilities, or nothing changes along the path"

    n_steps: int = 1

    def _measure(self, context: EvalContext) -> Measurement:
        trace = cast(Trace, self._walked(context).trace)
        before, at_input = to_float64(trace.confidence[0]), to_float64(trace.confidence[-1])
        change = (before - at_input) / at_input
        breakdown = {"confidence_baseline": before, "confidence_input": at_input}
        undefined = (at_input == 0) | _nothing_moves(trace, context)
        if not (context.evaluator.output_spec or LOGITS).has_probabilities:
            undefined = torch.ones_like(undefined)
        return Measurement(change.masked_fill(undefined, torch.nan), breakdown)


@dataclass(frozen=True)
class PathCurvature(PathMetric):
    """Say how fast the gradient turns along the path.

    M = max_k |g(t_k+1) - g(t_k)|_2 / |gamma(t_k+1) - gamma(t_k)|_2 over neighbouring steps, g the
    gradient of the score: a finite-difference estimate, from below, of the largest curvature on the
    way. The breakdown's `riemann_error_bound` is M |x - x'|^2 / (2 n). NaN for a single step. Maps
    from more steps look closer and may find more: compare at equal `n_steps`.

    Args:
        baseline: see `PathMetric`.
        score: see `PathMetric`.
        n_steps: see `PathMetric`.

    References:
        Choi et al. 2025, arXiv 2410.08069.
    """

    summary = "how fast the gradient turns along the path, by finite differences"
    reference = "Choi et al. 2025, arXiv 2410.08069"
    higher_is_better = False
    bounds = (0, None)
    undefined_where = "the path has a single step, or nothing changes along it"

    def _measure(self, context: EvalContext) -> Measurement:
        found = self._walked(context)
        trace = cast(Trace, found.trace)
        value = to_float64(trace.gradient_change).masked_fill(
            _nothing_moves(trace, context), torch.nan
        )
        bound = found.measured.get("riemann_error_bound", torch.full_like(value, torch.nan))
        return Measurement(value, {"riemann_error_bound": bound})


@dataclass(frozen=True)
class Stability(Comparison):
    """Compare maps made with few steps with one made with many, from the same baseline.

    mean_k similarity(A at k steps, A at many). The baseline is the attribution's own, so that the
    search for it does not count. `breakdown` has the similarity at each number of steps.

    Args:
        similarity: compares two maps, one of `unilens.metrics.similarities`; by default the
            rank correlation of absolute values.
        steps: of the maps of few steps, each a number of nodes on the path.
        against: steps of the map that the others are compared with.

    References:
        Choi et al. 2025, arXiv 2410.08069, figure 7.
    """

    family = "path"
    summary = "similarity of maps of few steps with one of many"
    reference = "Choi et al. 2025, arXiv 2410.08069, figure 7"
    traits = ("costlier_maps",)
    bounds = (-1, 1)
    needs = ("method",)
    undefined_where = "a map of fewer steps is the same everywhere"
    similarity: Similarity = Spearman("abs")  # noqa: RUF009 - it is frozen
    steps: tuple[int, ...] = (1, 15)
    against: Count = 30

    def __post_init__(self) -> None:
        super().__post_init__()
        several = isinstance(self.steps, (tuple, list)) and bool(self.steps)
        require(several, f"expected steps to be several whole numbers, got {self.steps!r}")
        for count in self.steps:
            check_count("steps", count)
        require(
            self.against not in self.steps,
            f"expected against to be none of steps, got {self.against} in {self.steps!r}",
        )

    @property
    def explanations(self) -> int:
        """How many maps are made anew, one of them to find the baseline where it is not known.

        Each counts as one of the method's own; with more steps than those it takes more passes.
        """
        return len(self.steps) + 2

    def _measure(self, context: EvalContext) -> Measurement:
        made = _maps_at(context, (*self.steps, self.against))
        breakdown = {
            f"{count}_steps": self.similarity(made[count], made[self.against])
            for count in self.steps
        }
        return Measurement(torch.stack(list(breakdown.values())).mean(0), breakdown)


def _maps_at(context: EvalContext, steps: tuple[int, ...]) -> dict[int, Tensor]:
    """Return the maps by number of steps."""
    method: Any = context.method
    if not dataclasses.is_dataclass(method) or "n_steps" not in method.__dataclass_fields__:
        raise NotApplicableError(
            f"stability varies a method's n_steps, and {type(method).__name__} has none; pass "
            "method='ig' or another path method"
        )

    def explain(method: Any) -> Attribution:
        return cast(Method, method)(
            context.evaluator,
            context.inputs,
            context.target,
            seed=context.map_seed,
            channels="first",
        )

    if not isinstance(method, PathAttribution):
        changed: Any = dataclasses.replace
        return {n: explain(changed(method, n_steps=n)).values.detach() for n in steps}
    known = explain(method) if context.attribution is None else context.attribution
    return maps_at(method, context.evaluator, context.inputs, known, steps)


metrics.add_metric("completeness_gap", CompletenessGap)
metrics.add_metric("monotonicity", Monotonicity)
metrics.add_metric("confidence_change", ConfidenceChange)
metrics.add_metric("stability", Stability, settings={"reduction": "abs"})
metrics.add_metric("path_curvature", PathCurvature)

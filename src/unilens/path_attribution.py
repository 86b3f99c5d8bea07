"""Score x Baseline x Path x Weighting x Quadrature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ._engine.balanced import AnyBalanced
from ._engine.evaluator import Evaluator, PassCount
from ._engine.score_gradient import ScoreGradient
from ._ops.precision import expand_like, to_float64
from ._validation.settings import Count
from .attribution import Attribution
from .baselines import Baseline, BaselineResult, Constant
from .baselines.base import to_baseline
from .diagnostics import Recorder, Trace, mean_trace, proximity
from .diagnostics.free import free_diagnostics, nested_diagnostics
from .errors import UnilensError, require
from .explainer import ExplainContext, Method
from .paths import Path, PathChunk, StraightLine, to_path
from .quadrature import AnyRule, Quadrature, quadrature
from .scores import AnyScore
from .scores import resolve as resolve_score
from .weightings import Riemann, Weighting, to_weighting
from .weightings.nested import CoarseSum, fork


@dataclass(frozen=True)
class PathAttribution(Method):
    """Sum the gradient of a score along a path from a baseline to the input.

    A_i = sum_k w_k df/dx_i(gamma(t_k)) gamma_i'(t_k), with the target held fixed at x.

    Args:
        baseline: what the input is compared with; None for black, or for the path's own.
        path: from the baseline to the input.
        weighting: how much the gradient at each step counts.
        rule: quadrature, by name or as a function of n_steps.
        n_steps: nodes on the path.
        score: what is explained, by name or as a function of logits and target.
        create_graph: whether the attribution is differentiable in inputs that require gradients, in
            the model's weights and in the baseline; the result of a search is a constant. All
            passes stay in memory, and rounding depends on the batch.
        balanced: whether the gradients on the path are balanced, as in `unilens.methods.Gradient`;
            a search for the baseline keeps the model's own. The values then add up only where the
            weighting shares the changes of the score itself, as `gains` and `idgi` do.

    Example:
        >>> model = torch.nn.Linear(2, 2, bias=False).eval()
        >>> _ = torch.nn.init.constant_(model.weight, 3.0)
        >>> explain = PathAttribution(score="logit", n_steps=1)
        >>> explain(model, torch.tensor([[1.0, 2.0]]), 0).values
        tensor([[3., 6.]])
    """

    baseline: Baseline = field(default=None)  # type: ignore[assignment]  # see the docstring
    path: Path = field(default_factory=StraightLine)
    weighting: Weighting = field(default_factory=Riemann)
    rule: AnyRule = "gauss_legendre"
    n_steps: Count = 50
    score: AnyScore = "probability"
    create_graph: bool = False
    balanced: AnyBalanced = False

    def __post_init__(self) -> None:
        quadrature(self.rule, self.n_steps)  # checks the rule
        path = to_path(self.path)
        default = path.baseline or Constant()
        baseline = default if self.baseline is None else to_baseline(self.baseline)
        require(
            path.baseline is None or baseline == path.baseline,
            f"expected no baseline with {type(path).__name__}, which starts from its own, got "
            f"{self.baseline!r}; leave it out, or use path='straight'",
        )
        path.accepts(baseline)
        require(
            not (self.balanced and self.create_graph),
            "expected balanced gradients without create_graph, got both; balanced gradients have "
            "no derivative",
        )
        factors = {"baseline": baseline, "path": path, "weighting": to_weighting(self.weighting)}
        for name, factor in factors.items():
            object.__setattr__(self, name, factor)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, with those at both ends of the path."""
        placing = self.n_steps - 1 if self._places_nodes else 0
        count, forward = self.baseline.count, 1 + placing + self.n_steps
        return self.baseline.passes + PassCount(1 + count * forward, count * self.n_steps)

    @property
    def _places_nodes(self) -> bool:
        """Whether the weighting chooses the nodes of the path."""
        return self.weighting.places_nodes and self.path.takes_nodes_per_input and self.n_steps > 1

    @property
    def complete(self) -> bool:
        """Whether the weighting adds up to the change of the score."""
        return self.weighting.complete and (not self.balanced or self.weighting.shares_changes)

    @property
    def estimates_error(self) -> bool:
        """Whether the sum by every third node is added up too; see `unilens.weightings.nested`."""
        return self.weighting.nested and self.n_steps > 1 and not self.create_graph

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the baseline or the path does not fit the inputs."""
        self.baseline.check(model, inputs)
        self.path.check(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        values = baseline = coarse = torch.zeros_like(context.inputs)
        terms: list[_Term] = []
        for result in context.baselines(self.baseline):
            total, term = self.from_baseline(context, result)
            weight = expand_like(term.weight.expand(len(total)), total)
            values, baseline = values + weight * total, baseline + weight * result.values
            if term.coarse is not None:
                coarse = coarse + weight * term.coarse
            terms.append(term)
        weights = [term.weight for term in terms]
        _check_weights(weights)
        trace = mean_trace([term.trace for term in terms], weights)
        attribution = Attribution(
            values=values,
            target=context.target,
            score=resolve_score(self.score, context.evaluator)(context.outputs, context.target),
            outputs=context.outputs,
            baseline=baseline,
            baseline_score=_weighted_sum([term.score for term in terms], weights),
            trace=trace,
            record=_stack_records([term.record for term in terms]),
            complete=self.complete,
        )
        with torch.no_grad():
            distance = _weighted_sum([term.distance for term in terms], weights)
            measured = free_diagnostics(
                trace,
                distance,
                self.n_steps,
                attribution.record,
                has_probabilities=context.output_spec.has_probabilities,
            )
            if all(term.coarse is not None for term in terms):
                measured |= nested_diagnostics(values, coarse)
            return attribution.with_measured(**attribution.score_diagnostics, **measured)

    def from_baseline(
        self, context: ExplainContext, result: BaselineResult, recorder: Recorder | None = None
    ) -> tuple[Tensor, _Term]:
        """Return the attribution `(B, *S)` from one baseline, and its term of the mean.

        Args:
            context: inputs, target and evaluator.
            result: the baseline.
            recorder: of the steps of the path; None for one that keeps the trace alone.
        """
        score, graph = resolve_score(self.score, context.evaluator), self.create_graph
        if graph or self.balanced or result.score != self.score:
            result = replace(result, evaluation=None)  # of another gradient than that needed
        gradient = context.gradient_of(score, create_graph=graph)
        outputs = context.evaluator.outputs(result.values.unsqueeze(0), create_graph=graph)[0]
        start, end = score(outputs, context.target), score(context.outputs, context.target)
        recorder = recorder or Recorder(context.target, context.output_spec)
        recorder.end(0.0, outputs, start)
        rule = self._rule(gradient, result, context.inputs, start, end)
        chunks = _recorded(self.path(gradient, result, context.inputs, rule), recorder)
        weighting, coarse = self.weighting.for_model(context.evaluator), None
        if self.estimates_error:
            chunks, spare = fork(chunks)
            coarse = CoarseSum(weighting, spare, rule, start, end, context.inputs)
        total = torch.zeros_like(context.inputs)
        for first, second in weighting(chunks, rule, start, end):
            total.addcmul_(first, second)  # step by step: rounding must not depend on the batch
            recorder.partial_sum(total)
            if coarse is not None:
                coarse.advance()
        recorder.end(1.0, context.outputs, end)
        return total, _Term(
            coarse=None if coarse is None else coarse.value,
            score=start,
            trace=recorder.trace(),
            distance=proximity(context.inputs.detach(), result.values.detach()),
            record=result.record,
            weight=torch.as_tensor(result.weight, dtype=start.dtype, device=start.device),
        )

    def _rule(
        self,
        gradient: ScoreGradient,
        result: BaselineResult,
        inputs: Tensor,
        start: Tensor,
        end: Tensor,
    ) -> Quadrature:
        """Return nodes and weights: the rule's, or those that the weighting places by the score."""
        if not self._places_nodes:
            return quadrature(self.rule, self.n_steps)
        between = torch.arange(1, self.n_steps, dtype=torch.float64) / self.n_steps
        scores = [start.detach().unsqueeze(0)]
        for (fraction,) in gradient.blocks(inputs, between):
            points = result.values + fraction * (inputs - result.values)
            scores.append(gradient.scores(points.detach()))
        return self.weighting.place(torch.cat([*scores, end.detach().unsqueeze(0)]))


class _Term(NamedTuple):
    """What one baseline adds to the mean over several, apart from its values."""

    coarse: Tensor | None
    score: Tensor
    trace: Trace
    distance: Tensor
    record: Mapping[str, Tensor]
    weight: Tensor


def _recorded(chunks: Iterable[PathChunk], recorder: Recorder) -> Iterator[PathChunk]:
    for chunk in chunks:
        recorder.chunk(chunk.fraction, chunk.points, chunk.evaluation)
        yield chunk


def _check_weights(weights: Sequence[Tensor]) -> None:
    """Raise unless the weights of an input's baselines, each `()` or `(B,)`, sum to 1."""
    sums = sum((to_float64(weight.detach()) for weight in weights), start=torch.zeros(()))
    wrong = [total for total in sums.flatten().tolist() if abs(total - 1) > 0.01]
    if wrong:
        raise UnilensError(
            f"expected the weights of an input's baselines to sum to 1, got {wrong[0]:.4g}; divide "
            "each by their sum"
        )


def _weighted_sum(columns: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    weighted = [column * weight for column, weight in zip(columns, weights, strict=True)]
    return torch.stack(weighted).sum(0)


def _stack_records(records: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the records of several searches, `(B, R, ...)`, as far as all have an entry alike."""
    first = records[0]
    if len(records) == 1:
        return first
    shared = [
        name
        for name, value in first.items()
        if all(name in record and record[name].shape == value.shape for record in records)
    ]
    return {name: torch.stack([record[name] for record in records], dim=1) for name in shared}

"""Score x Baseline x Path x Weighting x Quadrature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from . import diagnostics
from ._engine.evaluator import Evaluator, PassCount
from ._engine.score_gradient import ScoreGradient
from ._ops.precision import expand_like, to_float64
from ._validation.settings import Count
from .attribution import Attribution
from .baselines import Baseline, BaselineResult, Constant
from .baselines.base import to_baseline
from .diagnostics import Recorder, Trace, mean_trace
from .errors import UnilensError, require
from .explainer import ExplainContext, Method
from .outputs import LOGITS, OutputSpec
from .paths import Path, PathChunk, StraightLine, to_path
from .quadrature import AnyRule, Quadrature, quadrature
from .scores import AnyScore
from .scores import resolve as resolve_score
from .weightings import Riemann, Weighting, to_weighting


@dataclass(frozen=True)
class PathAttribution(Method):
    """Sum the gradient of a score along a path from a baseline to the input.

    A_i = sum_k w_k df/dx_i(gamma(t_k)) gamma_i'(t_k), with the target held fixed at x.

    Args:
        baseline: what the input is compared with; None for black, or for the path's own.
        path: the way from there.
        weighting: how much the gradient at each step counts.
        rule: quadrature, by name or as a function of n_steps.
        n_steps: nodes on the path.
        score: what is explained, by name or as a function of logits and target.
        create_graph: whether the attribution can be differentiated, in inputs that require it, in
            the model's weights and in the baseline; what a search has found is held fixed. All
            passes are kept in memory, and rounding depends on the batch.

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

    def __post_init__(self) -> None:
        quadrature(self.rule, self.n_steps)
        path, own = to_path(self.path), to_path(self.path).baseline
        baseline = (own or Constant()) if self.baseline is None else to_baseline(self.baseline)
        require(
            own is None or baseline == own,
            f"expected no baseline with {type(path).__name__}, which starts from its own, got "
            f"{self.baseline!r}; leave it out, or use path='straight'",
        )
        path.accepts(baseline)
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
        return self.weighting.complete

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the baseline or the path needs other inputs."""
        self.baseline.check(model, inputs)
        self.path.check(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        parts: list[_OneBaseline] = []
        values = baseline = torch.zeros_like(context.inputs)
        for found in context.baselines(self.baseline):
            total, part = self.from_one(context, found)
            weight = expand_like(part.weight.expand(len(total)), total)
            values, baseline = values + weight * total, baseline + weight * found.values
            parts.append(part)
        weights = [part.weight for part in parts]
        _check_weights(weights)
        attribution = Attribution(
            values=values,
            target=context.target,
            score=resolve_score(self.score, context.evaluator)(context.outputs, context.target),
            outputs=context.outputs,
            baseline=baseline,
            baseline_score=_mean([part.score for part in parts], weights),
            trace=mean_trace([part.trace for part in parts], weights),
            record=_records([part.record for part in parts]),
            complete=self.complete,
        )
        with torch.no_grad():
            distance = _mean([part.distance for part in parts], weights)
            spec = context.evaluator.output_spec or LOGITS
            return attribution.with_measured(**self._free_diagnostics(attribution, distance, spec))

    def from_one(
        self, context: ExplainContext, found: BaselineResult, steps: Steps | None = None
    ) -> tuple[Tensor, _OneBaseline]:
        """Return the attribution from one baseline, and what is known of it; note the steps."""
        score, graph = resolve_score(self.score, context.evaluator), self.create_graph
        gradient = ScoreGradient(context.evaluator, score, context.target, create_graph=graph)
        outputs = context.evaluator.outputs(found.values.unsqueeze(0), create_graph=graph)[0]
        start, end = score(outputs, context.target), score(context.outputs, context.target)
        recorder = Recorder(context.target, context.evaluator.output_spec or LOGITS)
        recorder.end(0.0, outputs, start)
        rule = self._rule(gradient, found, context.inputs, start, end)
        chunks = _noted(self.path(gradient, found, context.inputs, rule), recorder, steps)
        total = torch.zeros_like(context.inputs)
        for first, second in self.weighting.for_model(context.evaluator)(chunks, rule, start, end):
            total.addcmul_(first, second)  # one by one: no sum whose rounding depends on the batch
            if steps is not None:
                steps.sums.append(total.clone())
        recorder.end(1.0, context.outputs, end)
        return total, _OneBaseline(
            score=start,
            trace=recorder.trace(),
            distance=diagnostics.proximity(context.inputs.detach(), found.values.detach()),
            record=found.record,
            weight=torch.as_tensor(found.weight, dtype=start.dtype, device=start.device),
        )

    def _rule(
        self,
        gradient: ScoreGradient,
        found: BaselineResult,
        inputs: Tensor,
        start: Tensor,
        end: Tensor,
    ) -> Quadrature:
        if not self._places_nodes:
            return quadrature(self.rule, self.n_steps)
        between = torch.arange(1, self.n_steps, dtype=torch.float64) / self.n_steps
        scores = [start.detach().unsqueeze(0)]
        for (fraction,) in gradient.blocks(inputs, between):
            points = found.values + fraction * (inputs - found.values)
            scores.append(gradient.scores(points.detach()))
        return self.weighting.place(torch.cat([*scores, end.detach().unsqueeze(0)]))

    def _free_diagnostics(
        self, attribution: Attribution, distance: Tensor, spec: OutputSpec
    ) -> dict[str, Tensor]:
        trace = attribution.trace
        assert trace is not None
        assert attribution.baseline_score is not None
        gap = {"completeness_gap": attribution.completeness_gap} if attribution.complete else {}
        sure = spec.has_probabilities
        change = {"confidence_change": diagnostics.confidence_change(trace)} if sure else {}
        measured = {
            **gap,
            "score_change": attribution.score - attribution.baseline_score,
            **change,
            "proximity": distance,
            "monotonicity": diagnostics.monotonicity(trace),
            "flat_fraction": diagnostics.flat_fraction(trace),
            "riemann_error_bound": diagnostics.riemann_error_bound(trace, distance, self.n_steps),
        }
        if "matching_loss" in attribution.record:
            losses = attribution.record["matching_loss"]
            fall = losses[..., 0] - losses[..., -1]
            measured["matching_loss_fall"] = fall.view(len(fall), -1).mean(1)
        return measured


class _OneBaseline(NamedTuple):
    """What is known of the attribution from one of several baselines."""

    score: Tensor
    trace: Trace
    distance: Tensor
    record: Mapping[str, Tensor]
    weight: Tensor


class Steps(NamedTuple):
    """The steps of a path, from the baseline on, each without the ends.

    Attributes:
        fractions: where each step is, `()` or `(B,)`.
        points: what the model sees there, each `(B, *S)`.
        sums: the map as far as it is added up with this step, each `(B, *S)`; the last is the map.
    """

    fractions: list[Tensor]
    points: list[Tensor]
    sums: list[Tensor]


def _noted(
    chunks: Iterable[PathChunk], recorder: Recorder, steps: Steps | None
) -> Iterator[PathChunk]:
    for chunk in chunks:
        recorder.chunk(chunk.fraction, chunk.points, chunk.evaluation)
        if steps is not None:
            steps.fractions.extend(chunk.fraction)
            steps.points.extend(chunk.points.detach())
        yield chunk


def _check_weights(weights: Sequence[Tensor]) -> None:
    """Raise unless the weights of an input's baselines, `()` or `(B,)` each, sum to 1."""
    total = sum((to_float64(weight.detach()) for weight in weights), start=torch.zeros(()))
    wrong = [one for one in total.flatten().tolist() if abs(one - 1) > 0.01]
    if wrong:
        raise UnilensError(
            f"expected the weights of an input's baselines to sum to 1, got {wrong[0]:.4g}; divide "
            "each by their sum"
        )


def _mean(columns: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    weighted = [column * weight for column, weight in zip(columns, weights, strict=True)]
    return torch.stack(weighted).sum(0)


def _records(records: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
    """Return the records of several searches side by side, where all have the same entries."""
    if len(records) == 1:
        return records[0]
    names = [
        name
        for name, value in records[0].items()
        if all(name in one and one[name].shape == value.shape for one in records)
    ]
    return {name: torch.stack([one[name] for one in records], dim=1) for name in names}

"""Score x Baseline x Path x Weighting x Quadrature."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from . import diagnostics
from ._engine.axes import Axes, channels_first
from ._engine.evaluator import Evaluator, PassCount
from ._engine.packing import MultiInputs
from ._engine.score_gradient import ScoreGradient
from ._ops.precision import expand_like, to_float64
from ._ops.random import standard_normal
from ._validation.settings import check_component, check_switch
from .attribution import Attribution
from .baselines import Baseline, BaselineResult, Constant
from .baselines.axes import settings_to_first
from .baselines.base import check_fits, passes_of
from .diagnostics import Recorder, Trace, mean_trace
from .errors import NotApplicableError, UnilensError, require
from .explainer import ExplainContext, Method, evaluator_of, to_first
from .multi_input import MultiInputAttribution, measure_diagnostics
from .outputs import LOGITS, OutputSpec
from .paths import Path, PathChunk, StraightLine
from .quadrature import Quadrature, Rule, quadrature
from .scores import Score
from .scores import resolve as resolve_score
from .weightings import DecisionGradients, Riemann, Weighting


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
        >>> model = nn.Linear(2, 2, bias=False).eval()
        >>> _ = nn.init.constant_(model.weight, 3.0)
        >>> explain = PathAttribution(score="logit", n_steps=1)
        >>> explain(model, torch.tensor([[1.0, 2.0]]), 0).values
        tensor([[3., 6.]])
    """

    baseline: Baseline | None = None
    path: Path = field(default_factory=StraightLine)
    weighting: Weighting = field(default_factory=Riemann)
    rule: str | Rule = "gauss_legendre"
    n_steps: int = 50
    score: str | Score = "probability"
    create_graph: bool = False

    def __post_init__(self) -> None:
        quadrature(self.rule, self.n_steps)
        resolve_score(self.score)
        own = getattr(self.path, "baseline", None)
        if self.baseline is None:
            object.__setattr__(self, "baseline", Constant() if own is None else own)
        for name in ("baseline", "path", "weighting"):
            check_component(name, getattr(self, name))
        require(
            own is None or self.baseline == own,
            f"expected no baseline with {type(self.path).__name__}, which starts from its own, "
            f"got {self.baseline!r}; leave it out, or use path='straight'",
        )
        accepts = getattr(self.path, "accepts", None)
        if accepts is not None:
            accepts(self.baseline)
        check_switch("create_graph", self.create_graph)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, with those at both ends of the path."""
        placing = self.n_steps - 1 if self._places else 0
        count = getattr(self.baseline, "count", 1)
        forward, backward = 1 + placing + self.n_steps, self.n_steps
        return passes_of(self.baseline) + PassCount(1 + count * forward, count * backward)

    @property
    def _places(self) -> bool:
        """Whether the weighting chooses the nodes; only a straight line lets it."""
        adaptive = isinstance(self.weighting, DecisionGradients) and self.weighting.adaptive
        return adaptive and isinstance(self.path, StraightLine) and self.n_steps > 1

    @property
    def complete(self) -> bool:
        """Whether the weighting adds up to the change of the score."""
        return bool(getattr(self.weighting, "complete", True))

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the baseline or the path needs other inputs."""
        for part in (self.baseline, self.path):
            check_fits(part, model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        parts: list[_Part] = []
        values = baseline = torch.zeros_like(context.inputs)
        assert self.baseline is not None
        for found in context.baselines(self.baseline):
            total, part = self._from_one(context, found)
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

    def _from_one(
        self, context: ExplainContext, found: BaselineResult, steps: Steps | None = None
    ) -> tuple[Tensor, _Part]:
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
        for first, second in self.weighting_for(context.evaluator)(chunks, rule, start, end):
            total.addcmul_(first, second)  # one by one: no sum whose rounding depends on the batch
            if steps is not None:
                steps.sums.append(total.clone())
        recorder.end(1.0, context.outputs, end)
        return total, _Part(
            score=start,
            trace=recorder.trace(),
            distance=diagnostics.proximity(context.inputs.detach(), found.values.detach()),
            record=found.record,
            weight=torch.as_tensor(found.weight, dtype=start.dtype, device=start.device),
        )

    def weighting_for(self, model: Evaluator) -> Weighting:
        """Return the weighting for a model, whose inputs may have parts."""
        for_model = getattr(self.weighting, "for_model", None)
        return self.weighting if for_model is None else cast(Weighting, for_model(model))

    def _rule(
        self,
        gradient: ScoreGradient,
        found: BaselineResult,
        inputs: Tensor,
        start: Tensor,
        end: Tensor,
    ) -> Quadrature:
        if not self._places:
            return quadrature(self.rule, self.n_steps)
        assert isinstance(self.weighting, DecisionGradients)
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

    def stability(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor | MultiInputs,
        attribution: Attribution | MultiInputAttribution,
        steps: Sequence[int] = (1, 15, 30),
    ) -> dict[str, Tensor]:
        """Return how stable the map is in n_steps, from the same baseline (more passes).

        Returns:
            By name `stability_<few>_<most>`, Spearman correlations `(B,)` of unsigned maps.
        """
        if isinstance(attribution, MultiInputAttribution):
            return measure_diagnostics(
                functools.partial(self.stability, steps=steps),
                model,
                cast(MultiInputs, inputs),
                attribution,
            )
        first = self._channels_first(model, cast(Tensor, inputs), attribution)
        return diagnostics.stability(first.method.maps_at(*first[1:4], steps))

    def maps_at(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        attribution: Attribution,
        steps: Sequence[int],
    ) -> dict[int, Tensor]:
        """Return the maps `(B, *S)` by n_steps, from the attribution's own baseline."""
        _baseline_of(attribution)
        first = self._channels_first(model, inputs, attribution)
        if first.axes.channels != "first":
            maps = first.method.maps_at(*first[1:4], steps)
            return {n_steps: first.axes.from_first(values) for n_steps, values in maps.items()}
        evaluator = evaluator_of(model, attribution)
        fixed = dataclasses.replace(self, create_graph=False)
        if getattr(self.path, "baseline", None) is None:
            seed = cast(int, attribution.provenance.get("seed", 0))
            context = ExplainContext.begin(fixed, evaluator, inputs, attribution.target, seed)
            fixed = dataclasses.replace(fixed, baseline=self._known(context, attribution))
        maps = {self.n_steps: attribution.values.detach()}
        for n_steps in steps:
            if n_steps not in maps:
                again = dataclasses.replace(fixed, n_steps=n_steps)
                found = again(evaluator, inputs, attribution.target, channels="first")
                maps[n_steps] = found.values
        return {n_steps: maps[n_steps] for n_steps in steps}

    def _known(self, context: ExplainContext, attribution: Attribution) -> _Known:
        """Return an attribution's baseline; several, or one with a trajectory, are found again."""
        baseline = _baseline_of(attribution)
        if getattr(self.baseline, "count", 1) == 1 and not getattr(
            self.baseline, "has_trajectory", False
        ):
            return _Known((BaselineResult(baseline.detach()),))
        assert self.baseline is not None
        return _Known(tuple(context.baselines(self.baseline)))

    def steps(
        self, model: nn.Module | Evaluator, inputs: Tensor, attribution: Attribution
    ) -> Steps:
        """Return what the path passes through, and how the map adds up on the way (more passes).

        Raises:
            NotApplicableError: the map is the mean over several baselines, or over parts.
        """
        if isinstance(inputs, (Mapping, tuple)):
            raise NotApplicableError(
                f"expected inputs as one tensor (B, *S), whose path has steps to show, got "
                f"{type(inputs).__name__}; wrap the model in one that takes the parts side by side"
            )
        first = self._channels_first(model, inputs, attribution)
        if first.axes.channels != "first":
            found = first.method.steps(*first[1:4])
            points, sums = (
                [first.axes.from_first(values) for values in several] for several in found[1:]
            )
            return Steps(found.fractions, points, sums)
        evaluator = evaluator_of(model, attribution)
        fixed = dataclasses.replace(self, create_graph=False)
        seed = cast(int, attribution.provenance.get("seed", 0))
        context = ExplainContext.begin(fixed, evaluator, inputs, attribution.target, seed)
        known = self._known(context, attribution).found
        if len(known) > 1:
            raise NotApplicableError(
                f"expected the path from one baseline, got {len(known)} baselines"
            )
        steps = Steps([], [], [])
        fixed._from_one(context, known[0], steps)
        return steps

    def _channels_first(
        self, model: nn.Module | Evaluator, inputs: Tensor, attribution: Attribution
    ) -> _ChannelsFirst:
        """Return the method, the model, the inputs and their attribution channels first."""
        axes = attribution.axes
        if axes.channels == "first":
            return _ChannelsFirst(self, model, inputs, attribution, axes)
        return _ChannelsFirst(
            settings_to_first(self, axes, inputs.ndim - 1),
            channels_first(model, axes),
            axes.to_first(inputs),
            to_first(attribution, axes),
            axes,
        )

    def curvature(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor | MultiInputs,
        attribution: Attribution | MultiInputAttribution,
        iterations: int = 10,
    ) -> dict[str, Tensor]:
        """Return the score's top Hessian eigenvalue at baseline and input (more passes).

        Returns:
            `curvature_baseline` and `curvature_input`, each `(B,)`, in score per squared unit of
            the inputs.
        """
        if isinstance(attribution, MultiInputAttribution):
            return measure_diagnostics(
                functools.partial(self.curvature, iterations=iterations),
                model,
                cast(MultiInputs, inputs),
                attribution,
            )
        first = self._channels_first(model, cast(Tensor, inputs), attribution)
        _, model, inputs, attribution, _ = first
        evaluator = evaluator_of(model, attribution)
        score = resolve_score(self.score, evaluator)
        gradient = ScoreGradient(evaluator, score, attribution.target)
        ends = torch.stack([_baseline_of(attribution), inputs]).detach()
        start = standard_normal(inputs.shape[1:], torch.Generator().manual_seed(0))
        top = diagnostics.top_curvature(
            functools.partial(gradient.hessian_vector, ends),
            start.to(ends).expand_as(ends),
            iterations,
        )
        return {"curvature_baseline": top[0], "curvature_input": top[1]}


class _ChannelsFirst(NamedTuple):
    """A method, and what it has explained, channels first; `axes` are the user's."""

    method: PathAttribution
    model: nn.Module | Evaluator
    inputs: Tensor
    attribution: Attribution
    axes: Axes


class _Part(NamedTuple):
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


def _baseline_of(attribution: Attribution) -> Tensor:
    if attribution.baseline is None:
        raise NotApplicableError(
            "expected an attribution with a baseline, got one of "
            f"{attribution.provenance.get('method', 'a method without')}; pass that of a path "
            "method"
        )
    return attribution.baseline


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


@dataclass(frozen=True, eq=False)
class _Known:
    """Baselines that were found before."""

    found: tuple[BaselineResult, ...]

    @property
    def has_trajectory(self) -> bool:
        """Whether every one of them has its trajectory."""
        return all(found.trajectory is not None for found in self.found)

    def __call__(self, *_: object, **__: object) -> Iterable[BaselineResult]:
        return self.found

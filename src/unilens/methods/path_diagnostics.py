"""Diagnostics of a path that take further passes: stability, curvature, and the path's steps."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from .. import diagnostics
from .._engine.axes import Axes, channels_first
from .._engine.evaluator import Evaluation, Evaluator
from .._engine.packing import MultiInputs
from .._engine.score_gradient import ScoreGradient
from .._ops.random import standard_normal
from ..attribution import Attribution
from ..baselines import Baseline, BaselineResult
from ..baselines.axes import settings_to_first
from ..errors import NotApplicableError
from ..explainer import ExplainContext, evaluator_of, to_first
from ..multi_input import MultiInputAttribution, measure_diagnostics
from ..outputs import OutputSpec
from ..path_attribution import PathAttribution
from ..scores import resolve as resolve_score


class Steps(NamedTuple):
    """The steps of a path, in order from the baseline, without the two ends.

    Attributes:
        fractions: of the path at each step, each `()` or `(B,)`.
        points: at which the model runs, each `(B, *S)`.
        sums: the map summed up to each step, each `(B, *S)`; the last is the map.
    """

    fractions: list[Tensor]
    points: list[Tensor]
    sums: list[Tensor]


class _StepRecorder(diagnostics.Recorder):
    """Collects the steps of a path, and their partial sums."""

    def __init__(self, target: Tensor, spec: OutputSpec) -> None:
        super().__init__(target, spec)
        self.steps = Steps([], [], [])

    def chunk(self, fraction: Tensor, points: Tensor, evaluation: Evaluation) -> None:
        """Record the steps of a chunk; see `Recorder`."""
        super().chunk(fraction, points, evaluation)
        self.steps.fractions.extend(fraction)
        self.steps.points.extend(points.detach())

    def partial_sum(self, values: Tensor) -> None:
        """Record the map `(B, *S)` summed up to the last step."""
        self.steps.sums.append(values.clone())


def stability(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    attribution: Attribution | MultiInputAttribution,
    steps: Sequence[int] = (1, 15, 30),
) -> dict[str, Tensor]:
    """Return how far a map changes with n_steps, from the same baseline.

    Args:
        method: the method that made the map.
        model: the model that the map explains.
        inputs: `(B, *S)`, or several inputs.
        attribution: the map.
        steps: numbers of steps, ascending.

    Returns:
        By name `stability_<few>_<most>`, Spearman correlations `(B,)` of absolute values.
    """
    if isinstance(attribution, MultiInputAttribution):
        measure = functools.partial(stability, method, steps=steps)
        return measure_diagnostics(measure, model, cast(MultiInputs, inputs), attribution)
    explanation = _channels_first(method, model, cast(Tensor, inputs), attribution)
    return diagnostics.stability(_maps(explanation, steps))


def maps_at(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    steps: Sequence[int],
) -> dict[int, Tensor]:
    """Return the maps `(B, *S)` by n_steps, from the attribution's own baseline."""
    explanation = _channels_first(method, model, inputs, attribution)
    maps = _maps(explanation, steps)
    return {n_steps: explanation.axes.from_first(values) for n_steps, values in maps.items()}


def _maps(explanation: _Explanation, steps: Sequence[int]) -> dict[int, Tensor]:
    """Return the maps by n_steps, channels first."""
    _baseline_of(explanation.attribution)
    method, target = explanation.method, explanation.attribution.target
    if method.path.baseline is None:
        method = dataclasses.replace(method, baseline=_known_baseline(explanation))
    maps = {method.n_steps: explanation.attribution.values.detach()}
    for n_steps in steps:
        if n_steps not in maps:
            again = dataclasses.replace(method, n_steps=n_steps)
            attribution = again(explanation.evaluator, explanation.inputs, target, channels="first")
            maps[n_steps] = attribution.values
    return {n_steps: maps[n_steps] for n_steps in steps}


def path_steps(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
) -> Steps:
    """Return the steps of the path from an attribution's baseline to its input.

    Raises:
        NotApplicableError: the map is the mean over several baselines, or explains several inputs.
    """
    if isinstance(inputs, (Mapping, tuple)):
        raise NotApplicableError(
            f"expected inputs as one tensor (B, *S), whose path has steps to show, got "
            f"{type(inputs).__name__}; wrap the model in one that takes them concatenated"
        )
    explanation = _channels_first(method, model, inputs, attribution)
    results = _known_baseline(explanation).results
    if len(results) > 1:
        raise NotApplicableError(
            f"expected the path from one baseline, got {len(results)} baselines"
        )
    context = explanation.context()
    recorder = _StepRecorder(context.target, context.output_spec)
    explanation.method.from_baseline(context, results[0], recorder)
    steps, from_first = recorder.steps, explanation.axes.from_first
    return Steps(
        steps.fractions, list(map(from_first, steps.points)), list(map(from_first, steps.sums))
    )


def curvature(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    attribution: Attribution | MultiInputAttribution,
    iterations: int = 10,
) -> dict[str, Tensor]:
    """Return the score's Hessian eigenvalue of largest magnitude, at baseline and input.

    Returns:
        `curvature_baseline` and `curvature_input`, each `(B,)`, in score per squared unit of the
        inputs.
    """
    if isinstance(attribution, MultiInputAttribution):
        measure = functools.partial(curvature, method, iterations=iterations)
        return measure_diagnostics(measure, model, cast(MultiInputs, inputs), attribution)
    explanation = _channels_first(method, model, cast(Tensor, inputs), attribution)
    score = resolve_score(method.score, explanation.evaluator)
    gradient = ScoreGradient(explanation.evaluator, score, attribution.target)
    ends = torch.stack([_baseline_of(explanation.attribution), explanation.inputs]).detach()
    start = standard_normal(ends.shape[2:], torch.Generator().manual_seed(0))
    top = diagnostics.top_curvature(
        functools.partial(gradient.hessian_vector, ends),
        start.to(ends).expand_as(ends),
        iterations,
    )
    return {"curvature_baseline": top[0], "curvature_input": top[1]}


class _Explanation(NamedTuple):
    """A method and its attribution, channels first and without a graph; `axes` are the user's."""

    method: PathAttribution
    evaluator: Evaluator
    inputs: Tensor
    attribution: Attribution
    axes: Axes

    def context(self) -> ExplainContext:
        """Return the context from which the method started."""
        seed = cast(int, self.attribution.provenance.get("seed", 0))
        target = self.attribution.target
        return ExplainContext.begin(self.method, self.evaluator, self.inputs, target, seed)


def _channels_first(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
) -> _Explanation:
    axes = attribution.axes
    if axes.channels != "first":
        method = settings_to_first(method, axes, inputs.ndim - 1)
        model, inputs = channels_first(model, axes), axes.to_first(inputs)
        attribution = to_first(attribution, axes)
    method = dataclasses.replace(method, create_graph=False)
    return _Explanation(method, evaluator_of(model, attribution), inputs, attribution, axes)


def _baseline_of(attribution: Attribution) -> Tensor:
    if attribution.baseline is None:
        raise NotApplicableError(
            "expected an attribution with a baseline, got one of "
            f"{attribution.provenance.get('method', 'a method without')}; pass that of a path "
            "method"
        )
    return attribution.baseline


@dataclass(frozen=True, eq=False)
class _KnownBaseline(Baseline):
    """The baselines of an earlier run."""

    results: tuple[BaselineResult, ...]

    @property
    def has_trajectory(self) -> bool:
        """Whether all of them have their trajectory."""
        return all(result.trajectory is not None for result in self.results)

    def __call__(self, *_: object, **__: object) -> Iterable[BaselineResult]:
        return self.results


def _known_baseline(explanation: _Explanation) -> _KnownBaseline:
    """Return an attribution's baseline; the search runs again for several, or for a trajectory."""
    values, baseline = _baseline_of(explanation.attribution), explanation.method.baseline
    if baseline.count == 1 and not baseline.has_trajectory:
        return _KnownBaseline((BaselineResult(values.detach()),))
    return _KnownBaseline(tuple(explanation.context().baselines(baseline)))

"""What further passes tell of a path: its stability, its curvature, its points."""

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
from .._engine.evaluator import Evaluator
from .._engine.packing import MultiInputs
from .._engine.score_gradient import ScoreGradient
from .._ops.random import standard_normal
from ..attribution import Attribution
from ..baselines import Baseline, BaselineResult
from ..baselines.axes import settings_to_first
from ..errors import NotApplicableError
from ..explainer import ExplainContext, evaluator_of, to_first
from ..multi_input import MultiInputAttribution, measure_diagnostics
from ..path_attribution import PathAttribution, Steps
from ..scores import resolve as resolve_score


def stability(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    attribution: Attribution | MultiInputAttribution,
    steps: Sequence[int] = (1, 15, 30),
) -> dict[str, Tensor]:
    """Return how stable a map is in n_steps, from the same baseline.

    Args:
        method: what made the map.
        model: what it explains.
        inputs: `(B, *S)`, or several.
        attribution: the map.
        steps: numbers of steps, ascending.

    Returns:
        By name `stability_<few>_<most>`, Spearman correlations `(B,)` of unsigned maps.
    """
    if isinstance(attribution, MultiInputAttribution):
        measure = functools.partial(stability, method, steps=steps)
        return measure_diagnostics(measure, model, cast(MultiInputs, inputs), attribution)
    first = _channels_first(method, model, cast(Tensor, inputs), attribution)
    return diagnostics.stability(_maps(first, steps))


def maps_at(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    steps: Sequence[int],
) -> dict[int, Tensor]:
    """Return the maps `(B, *S)` by n_steps, from the attribution's own baseline."""
    first = _channels_first(method, model, inputs, attribution)
    maps = _maps(first, steps)
    return {n_steps: first.axes.from_first(values) for n_steps, values in maps.items()}


def _maps(first: _ChannelsFirst, steps: Sequence[int]) -> dict[int, Tensor]:
    """Return the maps by n_steps, channels first."""
    _baseline_of(first.attribution)
    fixed = dataclasses.replace(first.method, create_graph=False)
    if fixed.path.baseline is None:
        baseline = _known_baseline(first.context(), first)
        fixed = dataclasses.replace(fixed, baseline=baseline)
    maps = {fixed.n_steps: first.attribution.values.detach()}
    for n_steps in steps:
        if n_steps not in maps:
            again, target = dataclasses.replace(fixed, n_steps=n_steps), first.attribution.target
            maps[n_steps] = again(first.evaluator, first.inputs, target, channels="first").values
    return {n_steps: maps[n_steps] for n_steps in steps}


def path_steps(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
) -> Steps:
    """Return what the path passes through, and how the map adds up on the way.

    Raises:
        NotApplicableError: the map is the mean over several baselines, or over several inputs.
    """
    if isinstance(inputs, (Mapping, tuple)):
        raise NotApplicableError(
            f"expected inputs as one tensor (B, *S), whose path has steps to show, got "
            f"{type(inputs).__name__}; wrap the model in one that takes the parts side by side"
        )
    first = _channels_first(method, model, inputs, attribution)
    context = first.context()
    known = _known_baseline(context, first).results
    if len(known) > 1:
        raise NotApplicableError(f"expected the path from one baseline, got {len(known)} baselines")
    steps = Steps([], [], [])
    dataclasses.replace(first.method, create_graph=False).from_one(context, known[0], steps)
    points, sums = (
        [first.axes.from_first(values) for values in several]
        for several in (steps.points, steps.sums)
    )
    return Steps(steps.fractions, points, sums)


def curvature(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    attribution: Attribution | MultiInputAttribution,
    iterations: int = 10,
) -> dict[str, Tensor]:
    """Return the score's top Hessian eigenvalue at baseline and input.

    Returns:
        `curvature_baseline` and `curvature_input`, each `(B,)`, in score per squared unit of the
        inputs.
    """
    if isinstance(attribution, MultiInputAttribution):
        measure = functools.partial(curvature, method, iterations=iterations)
        return measure_diagnostics(measure, model, cast(MultiInputs, inputs), attribution)
    first = _channels_first(method, model, cast(Tensor, inputs), attribution)
    score = resolve_score(method.score, first.evaluator)
    gradient = ScoreGradient(first.evaluator, score, attribution.target)
    ends = torch.stack([_baseline_of(first.attribution), first.inputs]).detach()
    start = standard_normal(first.inputs.shape[1:], torch.Generator().manual_seed(0))
    top = diagnostics.top_curvature(
        functools.partial(gradient.hessian_vector, ends),
        start.to(ends).expand_as(ends),
        iterations,
    )
    return {"curvature_baseline": top[0], "curvature_input": top[1]}


class _ChannelsFirst(NamedTuple):
    """A method, and what it has explained, channels first; `axes` are the user's."""

    method: PathAttribution
    evaluator: Evaluator
    inputs: Tensor
    attribution: Attribution
    axes: Axes

    def context(self) -> ExplainContext:
        """Return what the method started from."""
        fixed = dataclasses.replace(self.method, create_graph=False)
        seed = cast(int, self.attribution.provenance.get("seed", 0))
        target = self.attribution.target
        return ExplainContext.begin(fixed, self.evaluator, self.inputs, target, seed)


def _channels_first(
    method: PathAttribution,
    model: nn.Module | Evaluator,
    inputs: Tensor,
    attribution: Attribution,
) -> _ChannelsFirst:
    axes = attribution.axes
    if axes.channels != "first":
        method = settings_to_first(method, axes, inputs.ndim - 1)
        model, inputs = channels_first(model, axes), axes.to_first(inputs)
        attribution = to_first(attribution, axes)
    return _ChannelsFirst(method, evaluator_of(model, attribution), inputs, attribution, axes)


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
    """Baselines that were found before."""

    results: tuple[BaselineResult, ...]

    @property
    def has_trajectory(self) -> bool:
        """Whether every one of them has its trajectory."""
        return all(result.trajectory is not None for result in self.results)

    def __call__(self, *_: object, **__: object) -> Iterable[BaselineResult]:
        return self.results


def _known_baseline(context: ExplainContext, first: _ChannelsFirst) -> _KnownBaseline:
    """Return an attribution's baseline; several, or one with a trajectory, are found again."""
    values, baseline = _baseline_of(first.attribution), first.method.baseline
    if baseline.count == 1 and not baseline.has_trajectory:
        return _KnownBaseline((BaselineResult(values.detach()),))
    return _KnownBaseline(tuple(context.baselines(baseline)))

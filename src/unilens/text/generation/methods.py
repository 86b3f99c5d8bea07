"""Explaining several targets by a method: sharing passes where that is exact, else one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._engine.balanced import BalancedGradients, attention_rule
from ..._engine.balanced_check import check_balanced
from ..._engine.evaluator import Evaluator
from ..._ops.precision import to_float64
from ...baselines import Baseline, Constant
from ...errors import UnilensError, first_line, require
from ...explainer import Method
from ...methods.gradient import Gradient
from ...methods.perturbation.occlusion import Occlusion
from ...methods.smoothing import Smoothed
from ...path_attribution import PathAttribution
from ...paths import StraightLine
from ...quadrature import quadrature
from ...weightings import Riemann
from ..methods import TokenEverywhere
from ..model import rounding
from .next_token import NextToken
from .occlusion import SharedOcclusion
from .shared import SharedGradients, is_causal, widened
from .targets import Targets

_NODES = 8
"""Points of a path that are made at a time."""


@dataclass
class TargetValues:
    """The values of all targets, and how they were computed.

    Attributes:
        values: `(T, L)`, in float64; NaN in rows that are not explained.
        baseline_score: `(T,)`, or None for methods that do not add up to the score's change.
        logits: `(T, V)`, of each target given all before it.
        record: of the passes, for the provenance.
    """

    values: Tensor
    baseline_score: Tensor | None
    logits: Tensor
    record: Mapping[str, object] = field(default_factory=dict)


def explain_targets(
    model: NextToken,
    targets: Targets,
    explainer: Method,
    *,
    seed: int,
    shared: bool,
    decoded: Tensor | None = None,
) -> TargetValues:
    """Return the values of the targets by a method.

    Args:
        model: of the token after all sources of the last target.
        targets: to explain.
        explainer: the method.
        seed: of everything random.
        shared: whether targets may share passes.
        decoded: logits of the first targets by the network's own decoding.

    Raises:
        UnilensError: the network decodes by other logits than those that are explained.
    """
    causal = is_causal(model, targets)
    logits = _logits(model, targets, causal)
    if decoded is not None:
        _check_decoding(model, logits, decoded)
    why = {}
    if shared and causal and _can_share(explainer, model):
        try:
            return _together(model, targets, explainer, logits)
        except UnilensError:
            raise
        except Exception as error:  # of torch, in ways of its own; the loop needs less of it
            why = {"not shared": first_line(error)}
    result = _one_by_one(model, targets, explainer, seed, logits)
    return replace(result, record={**result.record, **why})


def _check_decoding(model: NextToken, logits: Tensor, decoded: Tensor) -> None:
    """Raise where decoding has other logits: some networks decode in passes of another kind."""
    rounded = max(rounding(model.whole.dtype), rounding(torch.float32))  # what decoding computes in
    change = (logits[: len(decoded)] - decoded.to(logits)).abs().amax(-1)
    same = change <= rounded * max(1.0, float(logits.abs().max()))  # False of NaN
    beyond = (~same).nonzero().flatten().tolist()
    require(
        not beyond,
        "expected a model that generates by the logits of one pass over the text, got "
        f"{type(model.network).__name__}, whose own decoding has others from token "
        f"{beyond[0] if beyond else 0} on; it cannot be explained by token",
    )


@torch.no_grad()
def _logits(model: NextToken, targets: Targets, causal: bool) -> Tensor:
    """Return the logits `(T, V)` of all targets."""
    if causal:
        return widened(model.logits(model.embeddings, len(targets.ids))[0])
    rows = [model.until(targets.length(number)) for number in range(len(targets.ids))]
    return widened(torch.cat([row(row.embeddings) for row in rows]))


def _can_share(explainer: Method, model: NextToken) -> bool:
    """Return whether all targets of a method share its passes and its baseline."""
    if type(explainer) is Gradient:
        return True
    if type(explainer) is Occlusion:
        return explainer.window == 1 and _is_fixed(explainer.baseline)
    return (
        type(explainer) is PathAttribution
        and type(explainer.path) is StraightLine
        and type(explainer.weighting) is Riemann
        and not explainer.create_graph
        and _is_fixed(explainer.baseline)
    )


def _is_fixed(baseline: Baseline) -> bool:
    """Return whether a baseline has the same token everywhere, whatever the text."""
    return isinstance(baseline, (Constant, TokenEverywhere))


def _together(model: NextToken, targets: Targets, explainer: Any, logits: Tensor) -> TargetValues:
    """Return the values of targets that share passes."""
    if isinstance(explainer, Occlusion):
        occlusion = SharedOcclusion(model, targets)
        values = occlusion(_baseline(explainer.baseline, model))
        record = {"passes": occlusion.passes, "cached": occlusion.cached}
        return TargetValues(_only(values, targets), None, logits, {"shared": True, **record})
    balanced = _balanced(model, explainer)
    gradients = SharedGradients(model, targets, balanced.mode)
    embeddings = widened(model.embeddings)  # sums of half precision would lose digits
    start = None
    if isinstance(explainer, PathAttribution):
        start = widened(_baseline(explainer.baseline, model))
        values = _integrated(gradients, start, embeddings, explainer)
    else:
        values = gradients(embeddings, embeddings if explainer.times_input else None)
    record = {"passes": gradients.passes, "ways": list(gradients.ways[0]), **balanced.record}
    adds_up = explainer.complete or _is_relevance(explainer)
    scores = _baseline_scores(model, targets, start) if adds_up else None
    return TargetValues(_only(values, targets), scores, logits, {"shared": True, **record})


def _is_relevance(explainer: Any) -> bool:
    """Return whether values add up to the score itself, as input x balanced gradient does."""
    return isinstance(explainer, Gradient) and explainer.times_input and bool(explainer.balanced)


class _Balanced(NamedTuple):
    """The mode of the passes that are differentiated, and what it rewrites."""

    mode: Callable[[], AbstractContextManager[object]]
    record: dict[str, object]


def _balanced(model: NextToken, explainer: Any) -> _Balanced:
    """Return the mode of balanced gradients where a method asks for them.

    Raises:
        NotApplicableError: a function of the model has no rule.
    """
    rule = attention_rule(explainer.balanced)
    if rule is None:
        return _Balanced(nullcontext, {})
    report = check_balanced(Evaluator(model, outputs="logits"), model.embeddings, rule)
    return _Balanced(partial(BalancedGradients, rule), {"balanced": report.describe()})


def _integrated(
    gradients: SharedGradients, start: Tensor, end: Tensor, explainer: PathAttribution
) -> Tensor:
    """Return the integral of the gradients along the line from start to end, `(T, L)`."""
    rule, direction = quadrature(explainer.rule, explainer.n_steps), end - start
    total = torch.zeros((), dtype=torch.float64, device=end.device)
    nodes = rule.nodes.to(end).view(-1, 1, 1).split(_NODES)
    weights = rule.weights.to(end).view(-1, 1, 1).split(_NODES)
    for node, weight in zip(nodes, weights, strict=True):
        total = total + gradients(start + node * direction, weight * direction)
    return total


@torch.no_grad()
def _baseline_scores(model: NextToken, targets: Targets, start: Tensor | None) -> Tensor:
    """Return the scores `(T,)` of a baseline; 0 for the balanced gradient, which has none."""
    numbers = range(len(targets.ids))
    if start is None:
        return model.whole.new_zeros(len(numbers))
    return targets.scores(widened(model.logits(start, len(numbers))), numbers)[0]


def _baseline(baseline: Baseline, model: NextToken) -> Tensor:
    """Return the baseline `(1, E, L)`."""
    evaluator, inputs = Evaluator(model, outputs="logits"), model.embeddings
    baseline.check(evaluator, inputs)
    target, generator = inputs.new_zeros(1, dtype=torch.long), torch.Generator()
    given: Any = baseline(evaluator, inputs, target, generator=generator)
    return torch.as_tensor(given)


def _only(values: Tensor, targets: Targets) -> Tensor:
    """Return values `(T, L)` with NaN where a target is not explained or not after the source."""
    source = torch.arange(values.shape[1], device=values.device)
    kept = torch.zeros_like(values, dtype=torch.bool)
    for number in targets.explained:
        kept[number] = source < targets.length(number)
    return values.where(kept, torch.nan)


def _one_by_one(
    model: NextToken, targets: Targets, explainer: Method, seed: int, logits: Tensor
) -> TargetValues:
    """Return the values of targets that are explained one by one, each by its own model."""
    shape = len(targets.ids), model.embeddings.shape[-1]
    values = torch.full(shape, torch.nan, dtype=torch.float64, device=logits.device)
    starts: list[Tensor | None] = []
    warnings: dict[str, object] = {}
    for number in targets.explained:
        before = model.until(targets.length(number))
        method = explainer.with_score(targets.score_of(number))  # type: ignore[arg-type]
        evaluator = Evaluator(before, outputs="logits", channels="first")
        attribution = method(evaluator, before.embeddings, int(targets.ids[number]), seed=seed)
        values[number, : targets.length(number)] = _by_token(attribution.values[0], explainer)
        none = torch.zeros_like(attribution.score) if _is_relevance(explainer) else None
        starts.append(attribution.baseline_score if attribution.complete else none)
        if attribution.warnings[0]:
            warnings[str(number)] = attribution.warnings[0]
    record: dict[str, object] = {"shared": False}
    if warnings:
        record["warnings"] = warnings
    return TargetValues(values, _scattered(starts, targets), logits, record)


def _by_token(values: Tensor, explainer: Method) -> Tensor:
    """Return one value per token `(L,)` of values `(E, L)`: the sum, of a bare gradient the norm.

    A gradient's sum says nothing: behind a layer norm it is 0, since the mean of a token's
    embedding does not count.
    """
    values = to_float64(values)
    return values.norm(dim=0) if is_bare_gradient(explainer) else values.sum(0)


def is_bare_gradient(explainer: Method) -> bool:
    """Return whether a method's values are a gradient, not multiplied by a difference."""
    if isinstance(explainer, Smoothed):
        return is_bare_gradient(explainer.explainer)
    return isinstance(explainer, Gradient) and not explainer.times_input


def _scattered(starts: list[Tensor | None], targets: Targets) -> Tensor | None:
    """Return the baselines' scores `(T,)`, NaN where not explained; None without baselines."""
    known = [start for start in starts if start is not None]
    if not known or len(known) < len(starts):
        return None
    scores = torch.full(targets.ids.shape, torch.nan, dtype=known[0].dtype, device=known[0].device)
    scores[list(targets.explained)] = torch.cat(known)
    return scores

"""Whether the model agrees with the sign of a map's strongest group of values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .._engine.evaluator import Evaluator
from .._ops.precision import to_float64
from ..attribution import Attribution
from ..explainer import Method
from ..outputs import OutputSpec
from ..path_attribution import PathAttribution
from ..scores import AnyScore
from ..scores import resolve as resolve_score


def sign_agreement(
    model: Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    score: AnyScore,
    groups: Tensor,
    replacement: Tensor,
) -> Tensor:
    """Return 1 where replacing the strongest group moves the score as its sign says, else 0.

    It costs one forward pass per input.

    Args:
        model: runs the model.
        inputs: `(B, *S)`.
        attribution: of these inputs.
        score: that the attribution explains; a probability is compared by its logarithm.
        groups: integers from 0 that broadcast to `(B, *S)`; values of a group belong together, such
            as a column's or a word's. Negative: never replaced.
        replacement: broadcasts to the inputs; what stands in place of the group.

    Returns:
        `(B,)`; NaN where the strongest group is 0 or its replacement changes nothing.
    """
    groups = groups.to(inputs.device).expand_as(inputs)
    flat, index = to_float64(attribution.values.detach()).flatten(1), groups.flatten(1)
    known = flat.masked_fill(index < 0, 0.0)
    sums = flat.new_zeros(len(flat), int(groups.max()) + 1)
    sums = sums.scatter_add_(1, index.clamp(min=0), known)
    strongest = sums.abs().argmax(1)
    hidden = groups == strongest.view(-1, *[1] * (groups.ndim - 1))
    without = torch.where(hidden, replacement.to(inputs), inputs)
    with torch.no_grad():
        before, after = (
            _compared(model, score, outputs, attribution)
            for outputs in (attribution.outputs.detach(), model(without))
        )
    claimed = sums.gather(1, strongest.unsqueeze(1)).squeeze(1).sign()
    effect = (before - after).sign()
    agrees = to_float64(claimed == effect)
    return agrees.masked_fill((claimed * effect == 0) | (claimed * effect).isnan(), torch.nan)


def measure_signs(
    model: Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    method: Method,
    groups: Tensor | None = None,
    missing: Tensor | None = None,
) -> Attribution:
    """Return an attribution of rows, series or texts with its `sign_agreement`, if it has signs.

    The strongest column, position in all channels, or group is replaced by that of the baseline.

    Args:
        model: runs the model.
        inputs: `(B, F)`, or `(B, C, L)` in the order of the attribution's axes.
        attribution: of these inputs.
        method: that made it; the values of one that is not complete are no contributions.
        groups: of values; None for the attribution's own, or for columns or positions.
        missing: broadcasts to the inputs; the replacement where the baseline is searched for near
            the input. None for 0.
    """
    if method.score is None or not method.complete or attribution.baseline is None:
        return attribution
    groups = attribution.groups if groups is None else groups
    if groups is None:
        groups = torch.arange(inputs.shape[-1])
        if inputs.ndim == 3 and attribution.axes.channels == "last":
            groups = torch.arange(inputs.shape[1]).unsqueeze(1)
    replacement = attribution.baseline.detach()
    if isinstance(method, PathAttribution) and method.baseline.starts_at_input(model, inputs):
        replacement = inputs.new_zeros(()) if missing is None else missing
    agreement = sign_agreement(model, inputs, attribution, method.score, groups, replacement)
    return attribution.with_measured(sign_agreement=agreement)


def _compared(
    model: Evaluator, score: AnyScore, outputs: Tensor, attribution: Attribution
) -> Tensor:
    """Return the score `(B,)` in float64; of a probability, the logarithm, which has no ceiling."""
    spec, target = OutputSpec.of(attribution.provenance), attribution.target
    if score == "probability" and spec.has_probabilities:
        logits, classes = spec.class_logits(to_float64(outputs), target)
        return -cross_entropy(logits, classes, reduction="none")
    return to_float64(resolve_score(score, model)(outputs, target))

"""Whether the model agrees with the sign of a map's strongest group of values."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from .._engine.evaluator import Evaluator
from .._ops.precision import to_float64
from ..attribution import Attribution
from ..outputs import OutputSpec

FEWEST_ROWS = 10
"""Inputs of one call from which they serve as references for each other."""


def sign_agreement(
    model: Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    groups: Tensor,
    replacement: Tensor,
) -> Tensor:
    """Return 1 where replacing the strongest group moves the score as its sign says, else 0.

    The score is the target's log-probability, or its output where there are no probabilities. It
    costs one forward pass per input.

    Args:
        model: runs the model.
        inputs: `(B, *S)`.
        attribution: of these inputs.
        groups: integers from 0 that broadcast to `(*S)`; values of a group belong together, such as
            a column's or a word's. Negative: never replaced.
        replacement: broadcasts to the inputs; what stands in place of the group.

    Returns:
        `(B,)`; NaN where the strongest group is 0 or its replacement changes nothing.
    """
    groups = groups.expand(inputs.shape[1:]).to(inputs.device)
    count = int(groups.max()) + 1
    flat, index = to_float64(attribution.values.detach()).flatten(1), groups.flatten()
    known = index >= 0
    sums = flat.new_zeros(len(flat), count).index_add_(1, index[known], flat[:, known])
    strongest = sums.abs().argmax(1)
    hidden = groups.unsqueeze(0) == strongest.view(-1, *[1] * groups.ndim)
    without = torch.where(hidden, replacement.to(inputs), inputs)
    with torch.no_grad():
        after = model(without)
    spec, target = OutputSpec.of(attribution.provenance), attribution.target
    before = _log_score(spec, attribution.outputs.detach(), target)
    effect = (before - _log_score(spec, after, target)).sign()
    claimed = sums.gather(1, strongest.unsqueeze(1)).squeeze(1).sign()
    agrees = to_float64(claimed == effect)
    return agrees.masked_fill((claimed * effect == 0) | (claimed * effect).isnan(), torch.nan)


def measure_rows(
    model: Evaluator, inputs: Tensor, attribution: Attribution, references: Tensor | None
) -> Attribution:
    """Return an attribution of rows or series with its `sign_agreement`.

    The strongest column of a row, or position of a series in all channels, is replaced by its mean
    over the references or, from `FEWEST_ROWS` inputs on, over the inputs; else by 0.

    Args:
        model: runs the model.
        inputs: `(B, F)`, or `(B, C, L)` in the order of the attribution's axes.
        attribution: of these inputs.
        references: `(R, *S)`, typical inputs, if there are any.
    """
    groups = torch.arange(inputs.shape[-1])
    if inputs.ndim == 3 and attribution.axes.channels == "last":
        groups = torch.arange(inputs.shape[1]).unsqueeze(1)
    known = references if references is not None else inputs if len(inputs) >= FEWEST_ROWS else None
    typical = inputs.new_zeros(()) if known is None else known.detach().mean(0)
    agreement = sign_agreement(model, inputs, attribution, groups, typical)
    return attribution.with_measured(sign_agreement=agreement)


def _log_score(spec: OutputSpec, outputs: Tensor, target: Tensor) -> Tensor:
    if not spec.has_probabilities:
        return to_float64(outputs.gather(1, target.unsqueeze(1)).squeeze(1))
    logits, classes = spec.class_logits(to_float64(outputs), target)
    return -cross_entropy(logits, classes, reduction="none")

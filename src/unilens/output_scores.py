"""Explanations of scores of whatever a model returns; see `unilens.scores`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from ._engine.evaluator import Evaluator
from ._engine.packing import MultiInputs
from ._validation.inputs import Target, check_inputs
from .attribution import Attribution
from .errors import require
from .multi_input import MultiInputAttribution, read_inputs, whole_of, with_whole
from .outputs import LOGITS
from .provenance import describe
from .scores import OutputScore, bind

A = TypeVar("A", Attribution, MultiInputAttribution)


def explain_output_score(
    explain: Callable[[Evaluator, Any, Tensor], A],
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    target: Target,
    score: OutputScore,
) -> A:
    """Explain a score of whatever the model returns, which becomes the model's only output.

    Args:
        explain: from an evaluator whose outputs are the score's columns, inputs, and the column of
            each input, to its attribution by the score `logit`.
        model: the user's.
        inputs: `(B, *S)`, in the user's order of axes, or several.
        target: None.
        score: of what the model returns.

    Returns:
        The attribution, with each input's own outputs: `(B, 1)`, or the logits `(B, K)` of classes.
    """
    require(
        target is None,
        f"expected no target beside a score of what the model returns, got {target!r}; the score "
        "says what is explained",
    )
    model = model if isinstance(inputs, (Mapping, tuple)) else Evaluator.of(model)
    checked = checked_inputs(model, inputs)
    bound = bind(model, checked, score)
    given = inputs if isinstance(inputs, Tensor) else checked
    found = explain(bound.evaluator, given, bound.target)
    whole = whole_of(found)
    outputs, target = bound.own_outputs(whole.outputs)
    spec = bound.evaluator.output_spec or LOGITS
    made = {"outputs": dataclasses.replace(spec, blocks=1).provenance, "score": describe(score)}
    whole = dataclasses.replace(whole, outputs=outputs, target=target).with_provenance(**made)
    return with_whole(found, whole)


def checked_inputs(model: nn.Module | Evaluator, inputs: Tensor | MultiInputs) -> Any:
    """Return inputs as tensors on the model's device, in the user's order of axes."""
    if isinstance(inputs, (Mapping, tuple)):
        return read_inputs(inputs, model)
    evaluator = Evaluator.of(model)
    return check_inputs(inputs, evaluator.device, evaluator.model)

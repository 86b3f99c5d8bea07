"""Scores of whatever a model returns, explained and judged; see `unilens.scores`.

Inputs with a score of their own, such as each with its own mask, are run apart: the result for an
input does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

from ._engine.evaluator import Evaluator
from ._engine.packing import MultiInputs
from ._validation.inputs import Target, check_inputs
from .attribution import Attribution
from .errors import require
from .groups.base import rows_of_groups
from .multi_input import MultiInputAttribution, joined, read_inputs, whole_of, with_whole
from .provenance import describe
from .scores import BoundScore, OutputScore, bind
from .scores.bound import rows_of_inputs

A = TypeVar("A", Attribution, MultiInputAttribution)
T = TypeVar("T")


def explain_output_score(
    explain: Callable[[Evaluator, Any, int, Tensor | None, Any], A],
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    target: Target,
    score: OutputScore,
    groups: object = None,
    outputs: str | None = None,
) -> A:
    """Explain a score of whatever the model returns, which becomes the model's only output.

    Args:
        explain: from an evaluator whose output is the score, inputs, the score's index among the
            outputs, the inputs' rows `(m,)`, or None for all, and their groups, to the attribution
            of these inputs by the score `logit`.
        model: the user's.
        inputs: `(B, *S)`, in the user's order of axes, or several.
        target: None.
        score: of what the model returns.
        groups: of values; see `unilens.explain`.
        outputs: None.

    Returns:
        The attribution, whose outputs are the score `(B, 1)`, or the logits `(B, K)` of classes.
    """
    found, bound = for_each_score(explain, model, inputs, target, score, groups, outputs)
    whole = joined([whole_of(part) for part in found], [part.rows for part in bound])
    return with_whole(found[0], whole.with_provenance(score=describe(score)))


def for_each_score(
    work: Callable[[Evaluator, Any, int, Tensor | None, Any], T],
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    target: Target,
    score: OutputScore,
    groups: object = None,
    outputs: str | None = None,
) -> tuple[list[T], list[BoundScore]]:
    """Return the results of some work for the inputs of each score; see `explain_output_score`."""
    require(
        outputs is None,
        f"expected no outputs= beside a score of what the model returns, got {outputs!r}; leave it "
        "out",
    )
    require(
        target is None,
        f"expected no target beside a score of what the model returns, got {target!r}; the score "
        "says what is explained",
    )
    separate = isinstance(inputs, (Mapping, tuple))
    model = model if separate else Evaluator.of(model)
    checked = checked_inputs(model, inputs)
    source = inputs if isinstance(inputs, Tensor) else checked
    bound = bind(model, checked, score)
    if len(bound) == 1:
        return [work(bound[0].evaluator, source, bound[0].target, None, groups)], bound
    found = [
        work(
            part.evaluator,
            rows_of_inputs(source, part.rows),
            part.target,
            part.rows,
            rows_of_groups(groups, source, part.rows),
        )
        for part in bound
    ]
    return found, bound


def checked_inputs(model: nn.Module | Evaluator, inputs: Tensor | MultiInputs) -> Any:
    """Return inputs as tensors on the model's device, in the user's order of axes."""
    if isinstance(inputs, (Mapping, tuple)):
        return read_inputs(inputs, model)
    evaluator = Evaluator.of(model)
    return check_inputs(inputs, evaluator.device, evaluator.model)


def check_score(attribution: Attribution, score: OutputScore) -> None:
    """Raise where an attribution explains another score, as far as its provenance tells."""
    made, given = attribution.provenance.get("score"), describe(score)
    require(
        made == given,
        f"expected maps of the score {given}, got maps of {made or 'a class'}; explain that score, "
        "or pass attribution.values to judge them all the same",
    )

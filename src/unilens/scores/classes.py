"""Scores of a class: from outputs `(M, K)` and target indices `(M,)` to values `(M,)`.

Any function with that signature can be used in place of a registered name. A function with a
parameter `spec` also receives the kind of the outputs (`unilens.outputs.OutputSpec`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Protocol, cast, overload

import torch
from torch import Tensor

from .._validation.settings import Check, check_count
from ..errors import NotApplicableError, UnilensError
from ..outputs import LOGITS, OutputSpec, pick
from ..registry import Card, Registry
from .base import as_output_score

if TYPE_CHECKING:
    from .._engine.evaluator import Evaluator


class Score(Protocol):
    """A function from outputs `(M, K)` and target indices `(M,)` to values `(M,)`."""

    def __call__(self, outputs: Tensor, target: Tensor, /) -> Tensor:
        """Return the values `(M,)`."""


def probability(outputs: Tensor, target: Tensor, spec: OutputSpec = LOGITS) -> Tensor:
    """Return the target's probability, in [0, 1]; the target's output where there are none.

    That is the softmax of logits, the sigmoid of a single logit or a label's logit, and for outputs
    that are probabilities the output itself.

    >>> probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.5000])
    >>> probability(torch.tensor([[0.9, 0.1]]), torch.tensor([0]), OutputSpec("probabilities"))
    tensor([0.9000])
    """
    if not spec.has_probabilities:
        return pick(outputs, target)
    return spec.confidence(outputs, target)


def log_probability(outputs: Tensor, target: Tensor, spec: OutputSpec = LOGITS) -> Tensor:
    """Return the logarithm of the target's probability, in nats."""
    logits, classes = spec.class_logits(outputs, target)
    return pick(logits.log_softmax(-1), classes)


def logit(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the target's output, unchanged, in the model's units."""
    return pick(outputs, target)


def sigmoid(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the sigmoid of the target's output, independently of the other outputs.

    >>> sigmoid(torch.tensor([[0.0, 8.0]]), torch.tensor([0]))
    tensor([0.5000])
    """
    return pick(outputs, target).sigmoid()


@overload
def margin(*, against: int | None = None) -> Score: ...


@overload
def margin(
    outputs: Tensor, target: Tensor, spec: OutputSpec = LOGITS, *, against: int | None = None
) -> Tensor: ...


def margin(
    outputs: Tensor | None = None,
    target: Tensor | None = None,
    spec: OutputSpec = LOGITS,
    *,
    against: int | None = None,
) -> Tensor | Score:
    """Return the target's output minus another: the largest of the others, or that of a class.

    `margin(against=3)`, without outputs, is the score that contrasts the target with class 3. For a
    single logit, or a label's logit, the margin is the logit itself; for a single probability p, or
    a label's, it is 2 p - 1.

    Args:
        outputs: `(M, K)`.
        target: `(M,)`.
        spec: what the outputs are.
        against: index of the other class, of several that exclude each other; None for the class
            with the largest of the other outputs.

    Raises:
        UnilensError: `against` is no other class.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([1.])
    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]), against=1)
    tensor([2.])
    """
    if against is not None:
        check_count("against", against, least=0)
    if outputs is None or target is None:
        return cast(Score, partial(margin, against=against))
    if spec.kind == "regression":
        spec.check_classes()
    if spec.is_exclusive(outputs):
        own, classes = spec.own_outputs(outputs, target)
        if against is not None:
            return pick(own, classes) - _output_of(against, own, classes)
        others = own.scatter(-1, classes.unsqueeze(-1), -torch.inf)
        return pick(own, classes) - others.amax(-1)
    if against is not None:
        raise NotApplicableError(
            "expected classes that exclude each other for margin(against=), got "
            f"outputs={spec.kind!r} of {outputs.shape[-1]}; use score='margin' or 'logit'"
        )
    if spec.kind in ("probabilities", "multi_label_probabilities"):
        return 2 * pick(outputs, target) - 1
    if not spec.has_probabilities:
        return pick(outputs, target)
    logits, _ = spec.class_logits(outputs, target)
    return logits[..., 1] - logits[..., 0]


def _output_of(against: int, outputs: Tensor, target: Tensor) -> Tensor:
    """Return the output `(M,)` of one class; raise where it is the target, or no class."""
    if against >= outputs.shape[-1] or bool((target == against).any()):
        raise UnilensError(
            f"expected against to be a class from 0 to {outputs.shape[-1] - 1} other than the "
            f"target, got {against}"
        )
    return outputs[..., against]


scores: Registry[Score] = Registry("score")
for _name, _score, _summary in (
    ("probability", probability, "the target's probability (the paper's choice)"),
    ("logit", logit, "the target's output, unchanged"),
    ("log_probability", log_probability, "log probability of the target, in nats"),
    ("margin", margin, "the target's logit minus the largest other logit"),
    ("sigmoid", sigmoid, "sigmoid of the target's output alone"),
):
    scores.add_value(
        Card(_name, "score", _summary, "Choi et al. 2025, section 3; Kokhlikyan et al. 2020"),
        cast(Score, _score),
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """A user's score; checks that it returns one number per row."""

    score: Score

    def __call__(self, outputs: Tensor, target: Tensor, /) -> Tensor:
        """Return the values `(M,)` of outputs `(M, K)`."""
        values = self.score(outputs, target)
        rows = tuple(outputs.shape[:-1])
        if not isinstance(values, Tensor) or values.shape != rows:
            actual = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UnilensError(
                f"expected score to give values of shape {rows}, got {actual}; return one number "
                "per row, as outputs[:, 0]"
            )
        return values


_WITH_SETTINGS = ("segmentation", "detection", "similarity", "regression", "forecast")
"""Scores of this package that are functions with settings."""


def resolve(score: str | Score, model: Evaluator | None = None) -> Score:
    """Return the score of a registered name, or a user's function that is checked when called.

    Args:
        score: a registered name, or a function of outputs and target.
        model: the model whose outputs are scored; None where they are logits.

    Raises:
        UnilensError: `score` is neither a registered name nor a function.
    """
    if not isinstance(score, str) and not callable(score):
        raise UnilensError(
            f"expected score to be a name or a function of logits and target, got {score!r}"
        )
    if model is not None and as_output_score(score) is not None:
        raise UnilensError(
            "expected a score of a class, a function of outputs (M, K) and target, got one of what "
            "the model returns; pass it as score= to unilens.explain or unilens.evaluate"
        )
    if isinstance(score, str) and score in _WITH_SETTINGS:
        raise UnilensError(
            f"expected a score by name that needs no settings, got {score!r}; write "
            f"score=unilens.scores.{score}(...)"
        )
    function = scores[score].build() if isinstance(score, str) else score
    if _takes_spec(function):
        spec = LOGITS if model is None else model.output_spec or LOGITS
        function = cast(Score, partial(cast(Any, function), spec=spec))
    return function if isinstance(score, str) else _Checked(function)


def _takes_spec(function: Callable[..., Any]) -> bool:
    try:
        return "spec" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # a C function without a signature
        return False


AnyScore = Annotated[str | Score, Check(lambda _, value: resolve(value), lambda: scores)]
"""A setting: the name of a registered score, or a function of outputs and targets."""

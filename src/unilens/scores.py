"""What is explained: one number per output row, for a target class that stays fixed.

A score is a function from logits `(M, K)` and targets `(M,)` to values `(M,)`; any function of
that shape can be used in place of a registered name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .errors import UnilensError
from .registry import Card, Registry


class Score(Protocol):
    """From logits `(M, K)` and target indices `(M,)` to values `(M,)`."""

    def __call__(self, outputs: Tensor, target: Tensor, /) -> Tensor:
        """Return the values `(M,)`."""


def probability(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the softmax probability of the target, in [0, 1].

    >>> probability(torch.tensor([[0.0, 0.0]]), torch.tensor([1]))
    tensor([0.5000])
    """
    _several_classes(outputs, "probability")
    return _pick(outputs.softmax(-1), target)


def log_probability(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the log softmax probability of the target, in nats."""
    _several_classes(outputs, "log_probability")
    return _pick(outputs.log_softmax(-1), target)


def logit(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit: the model's own output, in its own units."""
    return _pick(outputs, target)


def margin(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit minus the largest other logit; positive where it wins.

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([1.])
    """
    _several_classes(outputs, "margin")
    others = outputs.scatter(-1, target.unsqueeze(-1), -torch.inf)
    return _pick(outputs, target) - others.amax(-1)


def _pick(outputs: Tensor, target: Tensor) -> Tensor:
    return outputs.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def _several_classes(outputs: Tensor, name: str) -> None:
    if outputs.shape[-1] < 2:
        raise UnilensError(
            f"score {name!r} expects at least 2 classes, but the model's outputs have shape "
            f"{tuple(outputs.shape)}; use score='logit'"
        )


scores: Registry[Score] = Registry("score")
for _name, _score, _summary in (
    ("probability", probability, "softmax probability of the target (the paper's choice)"),
    ("logit", logit, "the target's logit"),
    ("log_probability", log_probability, "log softmax probability of the target, in nats"),
    ("margin", margin, "the target's logit minus the largest other logit"),
):
    scores.add_value(
        Card(_name, "score", _summary, "Choi et al. 2025, section 3; Kokhlikyan et al. 2020"),
        _score,
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """A score of the user's, whose values are checked to be one number per row."""

    score: Score

    def __call__(self, outputs: Tensor, target: Tensor, /) -> Tensor:
        """Return the values `(M,)` of outputs `(M, K)`."""
        values = self.score(outputs, target)
        rows = tuple(outputs.shape[:-1])
        if not isinstance(values, Tensor) or values.shape != rows:
            came = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise UnilensError(
                f"expected score to give values of shape {rows}, got {came}; return one number "
                "per row, as outputs[:, 0]"
            )
        return values


def resolve(score: str | Score) -> Score:
    """Return the score of a registered name, or the user's own function, checked when called."""
    if not isinstance(score, str) and not callable(score):
        raise UnilensError(
            f"expected score to be a name or a function of logits and target, got {score!r}"
        )
    return scores[score].build() if isinstance(score, str) else _Checked(score)

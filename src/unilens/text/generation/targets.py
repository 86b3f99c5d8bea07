"""The generated tokens that are explained, each with its score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...scores import AnyScore, Score, margin, resolve

Rows = Callable[[Tensor, Tensor], Tensor]
"""From logits `(n, m, V)` of m targets, and the targets' numbers `(m,)`, to scores `(n, m)`."""


@dataclass(frozen=True, slots=True)
class Targets:
    """Generated tokens with their scores.

    Attributes:
        ids: `(T,)`, of the generated tokens.
        against: ids of the tokens that they are contrasted with, `(T,)`, or None.
        score: of those that are not contrasted, by name or as a function of logits and target.
        explained: which are explained, ascending.
        prompt_count: P, the sources before the first of them.
    """

    ids: Tensor
    against: tuple[int | None, ...]
    score: AnyScore
    explained: tuple[int, ...]
    prompt_count: int

    def score_of(self, number: int) -> AnyScore:
        """Return the score of one target.

        The difference of two tokens' log-probabilities is that of their logits.
        """
        against = self.against[number]
        return self.score if against is None else margin(against=against)

    def scores(self, logits: Tensor, numbers: Sequence[int]) -> Tensor:
        """Return the scores `(n, m)` of logits `(n, m, V)` at targets, by their numbers `(m,)`."""
        count, ids = len(logits), self.ids[list(numbers)]
        rival = [self.against[number] for number in numbers]
        base: Score = resolve(self.score)
        if all(other is None for other in rival):
            return base(logits.flatten(0, 1), ids.repeat(count)).view(count, -1)
        own = logits.gather(-1, ids.expand(count, -1).unsqueeze(-1)).squeeze(-1)
        others = ids.new_tensor([0 if other is None else other for other in rival])
        other = logits.gather(-1, others.expand(count, -1).unsqueeze(-1)).squeeze(-1)
        contrast = torch.tensor([other is not None for other in rival], device=ids.device)
        if contrast.all():
            return own - other
        plain = base(logits.flatten(0, 1), ids.repeat(count)).view(count, -1)
        return torch.where(contrast, own - other, plain)

    def length(self, number: int) -> int:
        """Return how many sources come before a target."""
        return self.prompt_count + number

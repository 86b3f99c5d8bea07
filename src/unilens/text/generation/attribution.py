"""The attribution of a generated text: a matrix from earlier tokens to generated ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops.precision import to_float64
from ..tokens import Tokens
from .units import Span, UnitMatrix, Units, units_of


@dataclass(frozen=True, slots=True, eq=False)
class GenerationAttribution:
    """What each of T generated tokens owes to each token before it.

    The sources are the P tokens of the prompt, then the T generated tokens. For an encoder-decoder
    the prompt is what the encoder reads.

    Attributes:
        prompt: its P tokens, with those that the tokenizer adds, whose offsets are empty.
        continuation: the T generated tokens.
        values: `(T, P + T)`, in float64, in units of the score. Row t is NaN from source P + t on,
            which does not come before the token, and everywhere where the token is not explained.
        score: `(T,)`, of each token given all before it.
        baseline_score: `(T,)`, or None for methods without a baseline.
        probability: `(T,)`, of each token given all before it.
        against: `(T,)`, the token that each one is contrasted with, or None.
        provenance: method, settings, seed, versions and passes.
        notes: remarks on the text and the model.
    """

    prompt: Tokens
    continuation: Tokens
    values: Tensor
    score: Tensor
    baseline_score: Tensor | None
    probability: Tensor
    against: tuple[str | None, ...]
    provenance: Mapping[str, object]
    notes: tuple[str, ...] = ()

    @property
    def before(self) -> Tensor:
        """Whether each source comes before each generated token, `(T, P + T)`."""
        target, source = map(torch.arange, self.values.shape)
        return source < len(self.prompt.names) + target[:, None]

    @property
    def explained(self) -> Tensor:
        """Whether each generated token is explained, `(T,)`: any of its values is a number."""
        return ~self.values.cpu().isnan().all(1)

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - the sum of each token's values, `(T,)`; NaN where undefined."""
        if self.baseline_score is None:
            return torch.full_like(to_float64(self.score), torch.nan)
        change = to_float64(self.score) - to_float64(self.baseline_score)
        return change - self._causal_values.sum(1)

    def by(self, unit: str = "word", *, spans: Sequence[Span] = ()) -> UnitMatrix:
        """Return the matrix of units: sums over their tokens, so that all sums are kept.

        Args:
            unit: "token", "word" or "sentence", of the prompt and of the continuation.
            spans: parts of the prompt that are one unit each: their text, if it is there once, or
                `(start, end)` in characters. The rest of the prompt stays in units.

        Raises:
            UnilensError: no such unit or span; see `units_of`.
        """
        prompt, rows = units_of(self.prompt, unit, spans), units_of(self.continuation, unit)
        count = len(prompt.labels)
        after = (number + count for number in rows.of_token)
        columns = Units(prompt.labels + rows.labels, (*prompt.of_token, *after))
        pairs = columns.sums(rows.sums(self.before.to(self.values.device)).T).T
        values = columns.sums(rows.sums(self._causal_values).T).T
        contrasted: list[list[str]] = [[] for _ in rows.labels]
        for number, name in zip(rows.of_token, self.against, strict=True):
            contrasted[number] += [] if name is None else [name]
        return UnitMatrix(
            rows,
            columns,
            count,
            values.masked_fill(pairs == 0, torch.nan),
            rows.sums(self.score),
            rows.sums(to_float64(self.probability).log()).exp(),
            rows.sums(self.completeness_gap),
            tuple(", ".join(names) or None for names in contrasted),
        )

    @property
    def _causal_values(self) -> Tensor:
        """The values, zero where the source does not come before the token."""
        return to_float64(self.values).where(self.before.to(self.values.device), 0)

    def __repr__(self) -> str:
        method = self.provenance.get("method", "an unnamed method")
        of = f"{int(self.explained.sum())} of {len(self.continuation.names)} generated tokens"
        return f"{type(self).__name__} by {method}: {of}, {len(self.prompt.names)} prompt tokens"

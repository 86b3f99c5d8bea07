"""The attribution of a text, by token and by word."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .._ops.precision import to_float64
from ..attribution import Attribution, summary
from ..errors import require
from .tokens import Tokens

PARTS = ("word", "token")
"""The units that can be coloured."""


@dataclass(frozen=True, slots=True)
class TextAttribution:
    """An attribution of one text, by token and by word.

    Attributes:
        tokens: of the text: their names and offsets.
        label: of the class explained.
        attribution: at the embeddings, `(1, E, L)`, with its diagnostics and warnings.
        notes: remarks on the text and the model, such as on its length.
    """

    tokens: Tokens
    label: str
    attribution: Attribution
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        shapes = f"{len(self.tokens.names)} tokens"
        return f"TextAttribution ({self.label}) by {summary(self.attribution, shapes)}"

    @property
    def token_values(self) -> Tensor:
        """What each token contributed, `(L,)`: its embedding's sum, in units of the score."""
        return to_float64(self.attribution.values[0]).sum(0)

    @property
    def word_values(self) -> Tensor:
        """What each word contributed, `(W,)`: the sum over its tokens, in units of the score."""
        return self.tokens.by_word(self.token_values)

    @property
    def completeness_gap(self) -> float:
        """f(x) - f(x') - the sum of all values, in units of the score; NaN where undefined."""
        return float(self.attribution.completeness_gap[0])

    def pieces(self, by: str = "word") -> list[tuple[str, float | None]]:
        """Return the text in pieces, each with its value, or None where no token covers it.

        Joined, the pieces are the text. Tokens that share characters are one piece.

        Args:
            by: "word" or "token".
        """
        require(by in PARTS, f"expected by to be {' or '.join(PARTS)}, got {by!r}")
        words = by == "word"
        offsets = self.tokens.word_offsets if words else self.tokens.offsets
        values = (self.word_values if words else self.token_values).tolist()
        text, done = self.tokens.text, 0
        pieces: list[tuple[str, float | None]] = []
        for (start, end), value in zip(offsets, values, strict=True):
            if start < done and pieces and pieces[-1][1] is not None:
                before, so_far = pieces.pop()
                pieces.append((before + text[done:end], so_far + value))
            else:
                pieces += [(text[done:start], None)] if start > done else []
                pieces.append((text[start:end], value))
            done = max(done, end)
        return pieces + ([(text[done:], None)] if done < len(text) else [])

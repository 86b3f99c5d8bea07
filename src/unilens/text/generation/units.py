"""Units of a generated text's matrix: tokens, words, sentences, and spans of the prompt."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._ops.precision import to_float64
from ..._validation.settings import shown
from ...errors import UnilensError, require
from ..tokens import Tokens

UNITS = ("token", "word", "sentence")

_SENTENCE_END = re.compile(r"""([.!?]+["'”’)\]»]*(?=\s|$)|[。！？]+["'”’」』）]*|\n)\s*""")
"""A mark before white space, its closing quotation marks and brackets, or a line's end."""
_WHITE = {"\n": "↵", "\t": "⇥"}
"""How white space is labelled where a unit has nothing else."""

Span = str | tuple[int, int]
"""Characters of the prompt: a part of its text, or where one begins and ends."""


class Units(NamedTuple):
    """The units of N tokens.

    Attributes:
        labels: the text of each unit; the name of a token that has no text.
        of_token: `(N,)`, the number of the unit of each token.
    """

    labels: tuple[str, ...]
    of_token: tuple[int, ...]

    def sums(self, values: Tensor) -> Tensor:
        """Return the sums `(U, ...)` of the tokens' values `(N, ...)` over each unit."""
        values = to_float64(values)
        zeros = values.new_zeros(len(self.labels), *values.shape[1:])
        of_token = torch.tensor(self.of_token, dtype=torch.long, device=values.device)
        return zeros.index_add(0, of_token, values)


@dataclass(frozen=True, slots=True, eq=False)
class UnitMatrix:
    """What each generated unit owes to each unit before it.

    Attributes:
        rows: R units of the continuation.
        columns: C units: those of the prompt, then those of the continuation.
        n_prompt: the number of units of the prompt.
        values: `(R, C)`, the sums over the units' tokens; NaN where no token of the source comes
            before one of the row, and in rows of which a token is not explained.
        score: `(R,)`, the sum of the scores of the unit's tokens.
        probability: `(R,)`, the product of the probabilities of the unit's tokens.
        gap: `(R,)`, the sum of the completeness gaps of the unit's tokens.
        against: `(R,)`, the tokens that those of the unit are contrasted with; None without any.
    """

    rows: Units
    columns: Units
    n_prompt: int
    values: Tensor
    score: Tensor
    probability: Tensor
    gap: Tensor
    against: tuple[str | None, ...]

    @property
    def defined_rows(self) -> list[int]:
        """The rows with any number."""
        return [row for row, line in enumerate(self.values) if not line.isnan().all()]

    @property
    def defined_columns(self) -> list[int]:
        """The columns with any number: a last generated token, for one, comes before no other."""
        return [column for column, line in enumerate(self.values.T) if not line.isnan().all()]

    @property
    def scale(self) -> float:
        """The largest finite magnitude of the values; 0 without any."""
        return scale_of(self.values)

    def row_label(self, row: int) -> str:
        """Return the text of a row, with the tokens that it is contrasted with."""
        against = self.against[row]
        return self.rows.labels[row] + (f" (not {against})" if against else "")

    def __repr__(self) -> str:
        rows, columns = self.values.shape
        return f"UnitMatrix: {rows} generated units, {columns} sources ({self.n_prompt} of prompt)"


def scale_of(values: Tensor) -> float:
    """Return the largest finite magnitude of some values; 0 without any."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


def units_of(tokens: Tokens, by: str, spans: Sequence[Span] = ()) -> Units:
    """Return the units of a text's tokens, in their order.

    A sentence ends at a full stop, an exclamation or a question mark before white space, at those
    of Chinese and Japanese anywhere, and at the end of a line; abbreviations are not known. Tokens
    without text, such as special ones, are units of their own.

    Args:
        tokens: of the text.
        by: one of `UNITS`.
        spans: parts of the text that are one unit each; they take their tokens out of other units.

    Raises:
        UnilensError: no such unit, or a span that is not in the text once, or that holds no token,
            or that shares a token with another span.
    """
    require(by in UNITS, f"expected by to be {', '.join(UNITS)}, got {shown(by)}")
    ranges = _ranges(tokens, spans)
    ends = [match.end() for match in _SENTENCE_END.finditer(tokens.text)]
    numbers: dict[Hashable, int] = {}
    of_token = []
    for position, (start, end) in enumerate(tokens.offsets):
        first = _first_letter(tokens.text, start, end)
        key: Hashable = ("token", position)
        inside = [number for number, span in enumerate(ranges) if _overlap(tokens, position, span)]
        if inside:
            key = ("span", inside[0])
        elif by == "word":
            key = ("word", tokens.word_of[position])
        elif by == "sentence" and start < end:
            key = ("sentence", bisect_right(ends, first))
        of_token.append(numbers.setdefault(key, len(numbers)))
    return Units(_labels(tokens, of_token, len(numbers)), tuple(of_token))


def _ranges(tokens: Tokens, spans: object) -> list[tuple[int, int]]:
    """Return where spans begin and end in the text, checked."""
    require(
        isinstance(spans, Iterable) and not isinstance(spans, str),
        f'expected spans to be a list, as ["a part", (0, 7)], got {shown(spans)}',
    )
    ranges: list[tuple[int, int]] = []
    taken: set[int] = set()
    for span in spans:  # type: ignore[attr-defined]
        found = _range(tokens.text, span)
        inside = {i for i in range(len(tokens.names)) if _overlap(tokens, i, found)}
        require(bool(inside), f"expected spans with tokens, got {shown(span)}; widen it")
        require(
            not inside & taken,
            f"expected spans that share no token, got {shown(span)} beside another; join them",
        )
        ranges.append(found)
        taken |= inside
    return ranges


def _range(text: str, span: object) -> tuple[int, int]:
    if isinstance(span, str):
        count = len(re.findall(f"(?={re.escape(span)})", text)) if span else 0
        require(
            count == 1,
            f"expected a span that is in the prompt once, got {shown(span)}, which is there "
            f"{count} times; {'write more of it, or ' if count else ''}give its (start, end)",
        )
        return text.index(span), text.index(span) + len(span)
    ends = tuple(span) if isinstance(span, (tuple, list)) else ()
    if len(ends) != 2 or any(type(end) is not int for end in ends):
        raise UnilensError(
            f"expected a span to be a part of the prompt or its (start, end), got {shown(span)}"
        )
    require(
        0 <= ends[0] < ends[1] <= len(text),
        f"expected a span (start, end) within the prompt's {len(text)} characters, got {ends}",
    )
    return ends[0], ends[1]


def _overlap(tokens: Tokens, position: int, span: tuple[int, int]) -> bool:
    """Return whether a token shares a character with a span, white space before it aside."""
    start, end = tokens.offsets[position]
    return start < end and max(_first_letter(tokens.text, start, end), span[0]) < min(end, span[1])


def _first_letter(text: str, start: int, end: int) -> int:
    """Return the position of the first character that is no white space, or the start."""
    piece = text[start:end]
    return start + (len(piece) - len(piece.lstrip()) if piece.strip() else 0)


def _labels(tokens: Tokens, of_token: Sequence[int], count: int) -> tuple[str, ...]:
    members: list[list[int]] = [[] for _ in range(count)]
    for position, number in enumerate(of_token):
        members[number].append(position)
    return tuple(_label(tokens, positions) for positions in members)


def _label(tokens: Tokens, positions: Sequence[int]) -> str:
    """Return the text of some tokens in one line; of white space signs for it."""
    offsets = [tokens.offsets[position] for position in positions]
    spans = [(start, end) for start, end in offsets if start < end]
    if not spans:
        return " ".join(tokens.names[position] for position in positions)
    text = tokens.text[min(start for start, _ in spans) : max(end for _, end in spans)]
    return " ".join(text.split()) or "".join(_WHITE.get(character, "␣") for character in text)

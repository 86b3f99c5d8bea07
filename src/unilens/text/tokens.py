"""A text with the offsets of its tokens and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._ops.precision import to_float64
from ..errors import UnilensError, first_line, require
from .alignment import align, words_between_spaces
from .limits import tokenizer_limit, too_long


@dataclass(frozen=True, slots=True)
class Tokens:
    """The L tokens of a text, without those that the tokenizer adds, and the W words they make.

    Attributes:
        text: the original.
        names: `(L,)`, of the tokens.
        offsets: `(L,)`, start and end of each token in the text, in characters.
        word_of: `(L,)`, the number of the word of each token.
    """

    text: str
    names: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]
    word_of: tuple[int, ...]

    @property
    def word_offsets(self) -> tuple[tuple[int, int], ...]:
        """Start and end of each word in the text, in characters, `(W,)`."""
        spans: dict[int, tuple[int, int]] = {}
        for word, (start, end) in zip(self.word_of, self.offsets, strict=True):
            first, last = spans.get(word, (start, end))
            spans[word] = min(first, start), max(last, end)
        return tuple(spans[word] for word in sorted(spans))

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the text, `(W,)`."""
        return tuple(self.text[start:end].strip() for start, end in self.word_offsets)

    def by_word(self, values: Tensor) -> Tensor:
        """Return the sums `(W,)` of the tokens' values `(L,)` over each word."""
        sums = to_float64(values).new_zeros(max(self.word_of) + 1)
        return sums.index_add(
            0, torch.tensor(self.word_of, device=values.device), to_float64(values)
        )


def read_tokens(
    tokenizer: Any, text: str, padded: int | None = None
) -> tuple[Mapping[str, Any], Tokens, list[int]]:
    """Return a tokenizer's encoding of a text, its tokens, and their positions in the encoding.

    Args:
        tokenizer: of transformers.
        text: to encode.
        padded: the number of tokens to which the text is padded; None for no padding.

    Raises:
        UnilensError: no text, a text without words, or one longer than the tokenizer allows.
    """
    check_text(text)
    read = read_encoding(tokenizer, text, padded)
    added = read["special_tokens_mask"]
    positions = [position for position, special in enumerate(added) if not special]
    require(bool(positions), f"expected a text with words, got {text!r}; write some")
    count, most = len(added), tokenizer_limit(tokenizer)
    require(
        most is None or count <= most,
        too_long(most or 0, count, sum(added), "shorten it, raise tokenizer.model_max_length"),
    )
    names = tuple(
        tokenizer.convert_ids_to_tokens([read["input_ids"][position] for position in positions])
    )
    if tokenizer.is_fast:
        offsets = [tuple(read["offset_mapping"][position]) for position in positions]
        words = read.word_ids()
        word_of = _numbered([words[position] for position in positions])
    else:
        pieces = tokenizer.tokenize(text)  # an unknown piece has lost its name among the ids
        same = tokenizer.convert_tokens_to_ids(pieces) == [
            read["input_ids"][position] for position in positions
        ]
        offsets = align(text, pieces if same else names, tokenizer.unk_token)
        word_of = words_between_spaces(text, offsets)
    return read, Tokens(text, names, tuple(offsets), word_of), positions


def read_encoding(tokenizer: Any, text: str, padded: int | None = None) -> Any:
    """Return what a tokenizer gives for a text, with the mask of the tokens that it adds.

    Args:
        tokenizer: of transformers.
        text: to encode.
        padded: the number of tokens to which the text is padded; None for its own.
    """
    options: dict[str, Any] = {"verbose": False}
    if padded:
        options |= {"padding": "max_length", "max_length": padded}
    try:
        if not tokenizer.is_fast:
            return _read_slowly(tokenizer, text, options)
        return tokenizer(
            text, return_offsets_mapping=True, return_special_tokens_mask=True, **options
        )
    except Exception as error:  # the library raises plain Exceptions, for unknown words say
        raise UnilensError(
            f"expected a tokenizer that reads the text, got {type(tokenizer).__name__}: "
            f"{first_line(error)}"
        ) from error


def _read_slowly(tokenizer: Any, text: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a slow tokenizer's encoding; not all of them mark their special tokens."""
    read = dict(tokenizer(text, **options))
    ids, own = read["input_ids"], tokenizer(text, add_special_tokens=False, verbose=False)
    count = len(own["input_ids"])
    starts = range(len(ids) - count + 1)
    first = next(start for start in starts if ids[start : start + count] == own["input_ids"])
    added = [not first <= position < first + count for position in range(len(ids))]
    return {**read, "special_tokens_mask": added}


def check_text(text: object) -> None:
    """Raise unless it is one text, in Unicode."""
    if not isinstance(text, str):
        raise UnilensError(
            f"expected a text, one at a time, got {type(text).__name__}; call once for each"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnilensError(
            "expected a text in Unicode, got bytes that are no UTF-8; convert the text first"
        ) from None


def _numbered(words: Sequence[int | None]) -> tuple[int, ...]:
    """Return the words' numbers from 0 on; a token without a word is its own word."""
    numbers: list[int] = []
    for position, word in enumerate(words):
        same = position > 0 and word is not None and word == words[position - 1]
        numbers.append((numbers[-1] if numbers else -1) + (not same))
    return tuple(numbers)

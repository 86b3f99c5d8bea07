"""Offsets of a slow tokenizer's tokens in a text, found by the tokens' names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from ..errors import UnilensError

_MARKS = re.compile(r"^(##|Ġ|▁)|(</w>|@@)$")
"""Marks of tokens that continue, begin or end a word."""


def align(text: str, names: Sequence[str], unknown: str | None) -> list[tuple[int, int]]:
    """Return where each token begins and ends in the text, in characters.

    Tokens follow each other with nothing but white space between; case and accents may differ. An
    unknown token, where the tokenizer does not keep what it was, is a word between white space.

    Args:
        text: the original.
        names: of the tokens, without special tokens.
        unknown: the name of the unknown token, or None.

    Raises:
        UnilensError: a token is not where it is expected; the tokenizer rewrites the text.
    """
    folded, origins = _folded(text)
    offsets, done = [], 0
    for name in names:
        piece = _folded(_MARKS.sub("", name))[0]
        while not folded.startswith(piece, done) and folded[done : done + 1].isspace():
            done += 1
        if name == unknown:
            piece = (folded[done:].split(maxsplit=1) or [name])[0]
        if not folded.startswith(piece, done):
            raise _rewritten(name, folded[done:])
        end = done + len(piece)
        offsets.append((origins[done], origins[end - 1] + 1 if piece else origins[done]))
        done = end
    if folded[done:].strip():
        raise _rewritten("the end", folded[done:])
    return offsets


def _rewritten(name: str, rest: str) -> UnilensError:
    return UnilensError(
        "expected a fast tokenizer, which says where its tokens are in the text, got a slow one "
        f"that rewrites it: {name!r} is not found at {rest[:20]!r}; convert it to a tokenizer.json"
    )


def words_between_spaces(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the number of the word of each token; words are divided by white space."""
    number, last, numbers = -1, 0, []
    for start, end in offsets:
        number += number < 0 or any(
            character.isspace() for character in text[max(last - 1, 0) : start]
        )
        numbers.append(number)
        last = end
    return tuple(numbers)


def _folded(text: str) -> tuple[str, list[int]]:
    """Return a text without case and accents, and the position of each character in the text."""
    folded, origins = "", []
    for position, character in enumerate(text):
        plain = unicodedata.normalize("NFKD", character).casefold()
        kept = "".join(mark for mark in plain if not unicodedata.combining(mark))
        folded += kept
        origins += [position] * len(kept)
    return folded, [*origins, len(text)]

"""Prompts and generated tokens with their names, and their offsets in the text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UnilensError, require
from ..tokens import Tokens, check_text, read_encoding, read_tokens
from .language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class ReadText:
    """A prompt or a continuation: its tokens, their ids, and remarks on them."""

    tokens: Tokens
    ids: tuple[int, ...]
    notes: tuple[str, ...] = ()


def read_prompt(model: LanguageModel, prompt: str) -> ReadText:
    """Return a prompt with all of its tokens, those that the tokenizer adds included.

    An empty prompt is the token with which texts begin.

    Raises:
        UnilensError: no text, one longer than the tokenizer allows, or an empty one for a model
            without a token to begin with.
    """
    tokenizer = model.tokenizer
    if prompt == "":
        return _empty_prompt(model)
    encoding, own, positions = read_tokens(tokenizer, prompt)
    ids = tuple(encoding["input_ids"])
    return ReadText(_with_added(tokenizer, ids, own, positions), ids, _notes(model, ids, positions))


def _empty_prompt(model: LanguageModel) -> ReadText:
    tokenizer, notes = model.tokenizer, tuple[str, ...]()
    ids = tuple(read_encoding(tokenizer, "")["input_ids"])
    if not ids:
        first = tokenizer.bos_token_id
        if first is None:
            raise UnilensError(
                "expected a prompt, got an empty one for a tokenizer without a token that begins "
                "a text; write some words"
            )
        ids, notes = (first,), (f"the prompt is empty: {tokenizer.bos_token} begins the text",)
    own = Tokens("", (), (), ())
    return ReadText(_with_added(tokenizer, ids, own, []), ids, notes)


def _with_added(
    tokenizer: Any, ids: Sequence[int], own: Tokens, positions: Sequence[int]
) -> Tokens:
    """Return a text's tokens with those that the tokenizer adds, which have empty offsets."""
    names = list(tokenizer.convert_ids_to_tokens(list(ids)))
    place = {position: number for number, position in enumerate(positions)}
    offsets: list[tuple[int, int]] = []
    word_of: list[int] = []
    last = None
    for position in range(len(ids)):
        number = place.get(position)
        if number is None:
            end = offsets[-1][1] if offsets else 0
            offsets.append((end, end))
        else:
            names[position] = own.names[number]
            offsets.append(own.offsets[number])
        same = number is not None and last is not None and own.word_of[number] == last
        word_of.append((word_of[-1] if word_of else -1) + (not same))
        last = None if number is None else own.word_of[number]
    return Tokens(own.text, tuple(names), tuple(offsets), tuple(word_of))


def _notes(model: LanguageModel, ids: Sequence[int], positions: Sequence[int]) -> tuple[str, ...]:
    """Return remarks on tokens of a prompt that are there twice, or end it."""
    notes, tokenizer = [], model.tokenizer
    first = tokenizer.bos_token_id
    if first is not None and list(ids[:2]) == [first, first]:
        notes.append(
            f"the prompt begins with {tokenizer.bos_token} twice: its text has one, and the "
            "tokenizer adds one; leave it out of the text"
        )
    added = len(ids) - 1 not in positions
    if not model.has_encoder and added and len(ids) > 1:
        name = tokenizer.convert_ids_to_tokens(ids[-1])
        notes.append(f"the tokenizer ends the prompt with {name}, after which the model goes on")
    return tuple(notes)


def read_continuation(model: LanguageModel, prompt: ReadText, text: str) -> ReadText:
    """Return the tokens of a given continuation.

    Where the prompt and the text have the prompt's tokens at their start, the tokens are those of
    both together, so that a word's space counts; otherwise those of the text alone.

    Raises:
        UnilensError: no text, or one without tokens.
    """
    tokenizer = model.tokenizer
    check_text(text)
    if model.has_encoder:
        own = _own_target(model, text)
        return ReadText(spell_tokens(model, (), own), own)
    whole, _, positions = read_tokens(tokenizer, prompt.tokens.text + text)
    ids = _within(whole["input_ids"], positions)
    ours = _within(prompt.ids, range(len(prompt.ids)))
    notes: tuple[str, ...] = ()
    if ids[: len(ours)] == ours and len(ids) > len(ours):
        own = ids[len(ours) :]
    else:
        read, _, positions = read_tokens(tokenizer, text)
        own = tuple(read["input_ids"][position] for position in positions)
        if prompt.tokens.text:
            notes = ("the continuation is read alone: beside the prompt its tokens are others",)
    return ReadText(spell_tokens(model, prompt.ids, own), own, notes)


def _within(ids: Sequence[int], positions: Sequence[int]) -> tuple[int, ...]:
    """Return ids up to the last of some positions."""
    return tuple(ids[: max(positions, default=-1) + 1])


def _own_target(model: LanguageModel, text: str) -> tuple[int, ...]:
    """Return what a decoder writes for a text: its tokens, after one that sets the language.

    Of the tokens that the tokenizer adds, those that end a text are left out, and those that begin
    every text, except one that the model is made to write.
    """
    tokenizer = model.tokenizer
    source, *_ = read_tokens(tokenizer, text)  # checks it
    own, whole = (
        tuple(tokenizer(text_target=text, add_special_tokens=special, verbose=False)["input_ids"])
        for special in (False, True)
    )
    starts = range(len(whole) - len(own) + 1)
    first = next((start for start in starts if whole[start : start + len(own)] == own), 0)
    added = whole[:first]
    if added == tuple(source["input_ids"][:first]):
        added = tuple(number for number in added if number == model.forced)
    return (*added, *own)


def spell_tokens(model: LanguageModel, before: Sequence[int], ids: Sequence[int]) -> Tokens:
    """Return generated tokens with the text that they make, and their offsets in it.

    A token that ends within a character, as bytes of an emoji do, covers that character, as the
    next one does.

    Args:
        model: with its tokenizer.
        before: ids of the prompt, which decide whether a first space is kept.
        ids: of the generated tokens.
    """
    tokenizer = model.tokenizer

    def text_of(count: int) -> str:
        return str(
            tokenizer.decode(
                [*before, *ids[:count]],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
        )

    lead, whole = text_of(0), text_of(len(ids))
    fits = whole.startswith(lead)
    skip = len(lead) if fits else 0
    ends = [max(skip, _shared(text_of(count), whole)) - skip for count in range(len(ids) + 1)]
    special = set(tokenizer.all_special_ids)
    offsets = list(itertools.pairwise(ends))
    for number in range(len(ids) - 2, -1, -1):
        start, end = offsets[number]
        if start == end and ids[number] not in special:
            offsets[number] = (start, offsets[number + 1][1])
            offsets[number + 1] = (start, offsets[number + 1][1])
    text = whole[skip:]
    names = tuple(tokenizer.convert_ids_to_tokens(list(ids)))
    return Tokens(text, names, tuple(offsets), _words(text, offsets))


def _shared(first: str, second: str) -> int:
    """Return how many characters two texts share at their start."""
    pairs = zip(first, second, strict=False)
    return next(
        (place for place, (one, other) in enumerate(pairs) if one != other),
        min(len(first), len(second)),
    )


def _words(text: str, offsets: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return the number of the word of each token; words begin at white space."""
    numbers: list[int] = []
    for place, (start, end) in enumerate(offsets):
        between = text[max(start - 1, 0) : start + 1] if start < end else " "
        special_before = place > 0 and offsets[place - 1][0] == offsets[place - 1][1]
        same = place > 0 and start < end and offsets[place - 1][0] == start  # of one character
        spaced = any(map(str.isspace, between)) and not same
        begins = place == 0 or special_before or spaced
        numbers.append((numbers[-1] if numbers else -1) + begins)
    return tuple(numbers)


def contrast_token(model: LanguageModel, against: object, like: str) -> tuple[int, str, bool]:
    """Return the id and name of a contrasted token, and whether the text has several.

    Args:
        model: with its tokenizer.
        against: a word, the name of a token, or its id.
        like: the name of the generated token, which says whether words begin with a mark.

    Raises:
        UnilensError: the tokenizer does not know it.
    """
    tokenizer, count = model.tokenizer, model.written_vocabulary_size
    if isinstance(against, int) and not isinstance(against, bool):
        require(
            0 <= against < count,
            f"expected against to be a token from 0 to {count - 1}, got {against}",
        )
        return against, str(tokenizer.convert_ids_to_tokens(against)), False
    require(
        isinstance(against, str) and against.strip() != "",
        f"expected against to be a word or the name of a token, got {against!r}",
    )
    text = str(against)
    ids = _spellings(tokenizer, text, like)
    if not ids or ids[0] == tokenizer.unk_token_id:
        raise UnilensError(
            f"expected against to be a word that the tokenizer knows, got {text!r}; pass another "
            "word, or the name of a token"
        )
    name = str(tokenizer.convert_ids_to_tokens(ids[0]))
    piece = tokenizer.decode(ids[:1]).strip()
    require(
        len(ids) == 1 or (piece not in ("", *_MARKS) and "\ufffd" not in piece),
        f"expected against to be a word whose first token has a letter, got {text!r}, whose first "
        f"token, {name!r}, is a space or a part of a letter; pass another word, or a token's name",
    )
    return ids[0], name, len(ids) > 1


def _spellings(tokenizer: Any, text: str, like: str) -> list[int]:
    """Return the tokens of a word: the token of this name, or with a space where `like` has one."""
    known: Mapping[str, int] = tokenizer.get_vocab()
    if text in known and (text[:1] in _MARKS or like[:1] not in _MARKS):
        return [known[text]]
    read = [
        list(tokenizer(spelling, add_special_tokens=False, verbose=False)["input_ids"])
        for spelling in (text, f" {text}")
    ]
    names = [tokenizer.convert_ids_to_tokens(ids[0]) if ids else "" for ids in read]
    marked = like[:1] in _MARKS
    return min(
        zip(names, read, strict=True),
        key=lambda pair: ((pair[0][:1] in _MARKS) != marked, len(pair[1])),
    )[1]


_MARKS = ("Ġ", "▁")
"""Marks of tokens that begin a word."""

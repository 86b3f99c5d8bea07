"""The exceptions that unilens raises on bad input: what was expected, what came, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class UnilensError(ValueError):
    """Bad input: the message says what was expected, what came, and what to do."""


class UnilensWarning(UserWarning):
    """Something that was assumed, or that makes a result doubtful; the message names the remedy."""


class ChoiceError(UnilensError):
    """A value that is none of the valid ones, which are the attribute `valid`."""

    def __init__(self, message: str, valid: Iterable[str]) -> None:
        super().__init__(message)
        self.valid = tuple(valid)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it anew: an exception is pickled by its message alone."""
        return type(self), (str(self), self.valid)


class UnknownNameError(ChoiceError):
    """A name that is not registered; the message lists the nearest or all valid names."""

    def __init__(self, kind: str, name: object, valid: Iterable[str], remedy: str = "") -> None:
        names = list(valid)
        self._said = kind, name, names, remedy
        nearest = _nearest_names(str(name), names)
        message = f"unknown {kind} {str(name)!r}"
        message += f"; did you mean {_alternatives(nearest)}?" if nearest else "."
        if len(names) <= 40 and (not nearest or set(names) - set(nearest)):
            message += f" Valid: {', '.join(names) or 'none'}."
        super().__init__(message + (f" {remedy}" if remedy else ""), names)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what makes it anew."""
        return type(self), self._said


def _nearest_names(name: str, names: Iterable[str], at_most: int = 3) -> list[str]:
    """Return the names closest to `name`, best first: in spelling, else those that hold it.

    Up to twice as many, and these alone, where `name` is one of the words of several names.
    """
    by_folded: dict[str, str] = {}
    for candidate in names:
        by_folded.setdefault(candidate.casefold(), candidate)
    folded = name.casefold()
    with_word = [key for key in by_folded if " " in key and folded in key.split()]
    if with_word:
        return [by_folded[key] for key in with_word[: 2 * at_most]]
    close = difflib.get_close_matches(folded, by_folded, n=at_most, cutoff=0.6)
    inside = [key for key in by_folded if folded and folded in key and key not in close]
    return [by_folded[key] for key in (close + inside)[:at_most]]


def _alternatives(names: list[str]) -> str:
    """Return names as a sentence offers them: a, b or c."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def require(condition: bool, message: str) -> None:
    """Raise `UnilensError(message)` unless the condition holds."""
    if not condition:
        raise UnilensError(message)


class NotApplicableError(UnilensError):
    """A method that cannot explain this model or these inputs; the message names what it lacks."""


def first_line(error: BaseException) -> str:
    """Return what an error says, its first line alone."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

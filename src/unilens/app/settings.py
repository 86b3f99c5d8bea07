"""Which settings of a method a page shows, read from the registry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..methods import methods
from ..registry import Composed
from .wanted import OUT_OF_REACH

_NEVER = {"inner": {"smoothgrad", "squaregrad", "vargrad"}, "matching_target": {"prior"}}
"""Choices that the page cannot give what they need: a smoothed method inside, a class prior."""


@dataclass(frozen=True)
class Field:
    """A setting as a page shows it.

    Attributes:
        name: of the setting.
        default: its value; of the same kind as what the page gives back.
        choices: the names that it takes; empty for numbers and switches.
    """

    name: str
    default: bool | int | float | str | None
    choices: tuple[str, ...] = ()


def fields_of(method: str, given: Mapping[str, Any] | None = None) -> list[Field]:
    """Return the settings that a page offers for a method, those of chosen parts among them.

    Args:
        method: its name.
        given: what is chosen already; a baseline or path brings settings of its own.
    """
    entry = methods[method]
    fields = []
    for name, default in entry.settings_with(given or {}).items():
        if name in OUT_OF_REACH or not isinstance(default, bool | int | float | str | None):
            continue
        choices = _choices(method, name) if isinstance(default, str) else ()
        choices = tuple(one for one in choices if one not in _NEVER.get(name, ()))
        fields.append(Field(name, default, choices))
    return fields


def _choices(method: str, name: str) -> tuple[str, ...]:
    """Return the names that a setting takes, of the method's own or of the part that has it."""
    entry = methods[method]
    if name in entry.settings:
        return entry.choices(name)
    assert isinstance(entry, Composed)
    for registry in entry.kinds.values():
        for part in registry.values():
            if name in part.settings:
                return part.choices(name)
    return ()

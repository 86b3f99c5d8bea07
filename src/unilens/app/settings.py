"""Which settings of a method the page shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..methods import methods
from ..registry import Composed
from .request import HIDDEN_SETTINGS

_UNSUPPORTED = {"inner": {"smoothgrad", "squaregrad", "vargrad"}, "matching_target": {"prior"}}
"""Choices that need what the page does not have: a smoothed method inside, a class prior."""


@dataclass(frozen=True)
class SettingField:
    """A setting as the page shows it.

    Attributes:
        name: name of the setting.
        default: its default, of the type of the values that the page returns.
        choices: the names that it takes; empty for numbers and switches.
    """

    name: str
    default: bool | int | float | str | None
    choices: tuple[str, ...] = ()


def setting_fields(method: str, chosen: Mapping[str, Any] | None = None) -> list[SettingField]:
    """Return the settings that the page offers for a method and its chosen components.

    Args:
        method: name of the method.
        chosen: settings so far; a chosen baseline or path adds its own settings.
    """
    return [
        SettingField(name, default, _choices(method, name) if isinstance(default, str) else ())
        for name, default in methods[method].settings_with(chosen or {}).items()
        if name not in HIDDEN_SETTINGS and isinstance(default, bool | int | float | str | None)
    ]


def _choices(method: str, name: str) -> tuple[str, ...]:
    """Return the names that a setting of a method or one of its components takes."""
    entries = [methods[method]]
    if name not in entries[0].settings and isinstance(entries[0], Composed):
        entries = [entry for registry in entries[0].kinds.values() for entry in registry.values()]
    entry = next((entry for entry in entries if name in entry.settings), None)
    choices = () if entry is None else entry.choices(name)
    return tuple(choice for choice in choices if choice not in _UNSUPPORTED.get(name, ()))

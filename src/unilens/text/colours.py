"""Colours of values behind black text: orange for, purple against, as in maps of photographs."""

from __future__ import annotations

_FOR, _AGAINST = (230, 97, 1), (129, 103, 184)
_STRENGTH = 0.85
"""Of full colour: black text stays readable on it."""
INK = "#111111"
"""The colour of text."""


def mixed(value: float, scale: float) -> tuple[int, int, int]:
    """Return a value's colour, from white to full, in red, green and blue up to 255.

    Args:
        value: signed; NaN is white.
        scale: the value of full colour.
    """
    share = min(abs(value) / scale, 1.0) if scale > 0 and value == value else 0.0
    red, green, blue = _FOR if value > 0 else _AGAINST
    red, green, blue = (
        round(255 + share * _STRENGTH * (channel - 255)) for channel in (red, green, blue)
    )
    return red, green, blue


def css(value: float | None, scale: float) -> str:
    """Return a value's colour for CSS; empty without a value."""
    return "" if value is None else "rgb({}, {}, {})".format(*mixed(value, scale))


def terminal_style(value: float | None, scale: float) -> str:
    """Return a value's style for rich; empty without a value."""
    return "" if value is None else "{} on #{:02x}{:02x}{:02x}".format(INK, *mixed(value, scale))

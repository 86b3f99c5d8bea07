"""What settings may be: checks of what a user gives, each one line where it fails."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .errors import ChoiceError, UnilensError, require

CHANNELS = ("auto", "first", "last", "none")
"""Which axis of inputs holds the channels; "none": all are spatial; "auto": read off the model."""


def check_channels(channels: object) -> None:
    """Raise unless it says which axis of inputs `(B, *S)` holds the channels, or is its number."""
    if type(channels) is int and channels > 0:
        return
    if channels not in CHANNELS:
        names = ", ".join(CHANNELS)
        raise ChoiceError(
            f"expected channels to be one of {names}, or the number of an axis above 0, got "
            f"{channels!r}",
            list(CHANNELS),
        )


def check_bounds(bounds: tuple[float, float]) -> None:
    """Raise unless bounds are a pair of numbers, the lower first."""
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    require(
        pair and all(_is_finite(one) for one in bounds) and bounds[0] < bounds[1],
        f"expected bounds to be (lowest, highest), got {bounds!r}",
    )


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise unless the value is a whole number of at least `least`."""
    require(
        type(value) is int and value >= least,
        f"expected {name} to be a whole number of at least {least}, got {value!r}",
    )


def check_switch(name: str, value: object) -> None:
    """Raise unless the value is true or false."""
    require(isinstance(value, bool), f"expected {name} true or false, got {value!r}")


def check_part(name: str, value: object) -> None:
    """Raise unless the value is a function or an object that can be called like one."""
    if isinstance(value, type):
        raise UnilensError(
            f"expected {name} to be an object, got the class {value.__name__}; "
            f"write {value.__name__}(...)"
        )
    require(
        callable(value),
        f"expected {name} to be a function or an object of unilens.{name}s, got "
        f"{type(value).__name__}",
    )


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Raise unless the value is one of the valid names."""
    names = list(valid)
    if value not in names:
        raise ChoiceError(f"expected {name} to be one of {', '.join(names)}, got {value!r}", names)


def check_number(
    name: str, value: object, above: float | None = None, least: float | None = None
) -> None:
    """Raise unless the value is a number, larger than `above` and at least `least` where given."""
    expected = "a finite number"
    fits = _is_finite(value)
    if above is not None:
        expected, fits = f"{expected} above {above:g}", fits and value > above  # type: ignore[operator]
    if least is not None:
        expected, fits = f"{expected} of at least {least:g}", fits and value >= least  # type: ignore[operator]
    require(fits, f"expected {name} to be {expected}, got {value!r}")


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

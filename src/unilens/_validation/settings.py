"""Checks of settings; each error is one line."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor

from ..errors import ChoiceError, UnilensError, require
from .arrays import as_number, bare_array, is_array, to_tensor

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


_LONGEST = 80
"""Characters of a value that a message shows."""


class Settings:
    """The base of dataclasses whose fields are settings: they hold plain values.

    Before a class checks its fields, `plain` converts them, so that a setting may come from NumPy,
    pandas or torch, and the record of a result is plain data.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        check = cls.__dict__.get("__post_init__")
        if check is None:
            return

        @functools.wraps(check)
        def convert_and_check(self: Settings) -> None:
            Settings.__post_init__(self)
            check(self)

        cls.__post_init__ = convert_and_check  # type: ignore[method-assign]

    def __post_init__(self) -> None:
        """Convert the fields; see `plain`."""
        for field in dataclasses.fields(cast(Any, self)):
            given = getattr(self, field.name)
            value = plain(field.name, given, isinstance(field.default, tuple))
            if value is not given:
                object.__setattr__(self, field.name, value)


def plain(name: str, value: object, several: bool = False) -> object:
    """Return a setting from another library as Python's own, or as a tensor; others as they are.

    Numbers and truths become Python's, arrays and columns `(n,)` tuples of them, larger arrays and
    frames tensors.

    Args:
        name: of the setting.
        value: anything.
        several: whether it is a tuple of numbers, so that a tensor `(n,)` becomes one too.
    """
    if type(value) in (tuple, list):
        several_values = cast(Iterable[object], value)
        return cast(Any, type(value))(plain(name, item) for item in several_values)
    value = as_number(value)
    if several and isinstance(value, Tensor) and value.ndim == 1:
        return tuple(value.tolist())
    if not is_array(value):
        return value
    array = bare_array(name, value)
    return tuple(map(as_number, array.tolist())) if array.ndim == 1 else to_tensor(name, value)


def check_bounds(bounds: tuple[float, float]) -> None:
    """Raise unless bounds are a pair of numbers, the lower first."""
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    require(
        pair and all(_is_finite(bound) for bound in bounds) and bounds[0] < bounds[1],
        f"expected bounds to be (lowest, highest), got {shown(bounds)}",
    )


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return the value as an int; raise unless it is a whole number of at least `least`.

    A float is refused, whatever its value.
    """
    count = as_number(value)
    if type(count) is not int or count < least:
        raise UnilensError(
            f"expected {name} to be a whole number of at least {least}, got {shown(value)}"
        )
    return count


def check_switch(name: str, value: object) -> None:
    """Raise unless the value is true or false."""
    require(
        isinstance(as_number(value), bool), f"expected {name} true or false, got {shown(value)}"
    )


def check_component(name: str, value: object) -> None:
    """Raise unless the value is a function or an object that can be called like one."""
    if isinstance(value, type):
        raise UnilensError(
            f"expected {name} to be an object, got the class {value.__name__}; "
            f"write {value.__name__}(...)"
        )
    values = name == "baseline" and isinstance(value, (Tensor, tuple, list, int, float))
    remedy = "; write unilens.baselines.parts.Given(torch.as_tensor(values))" if values else ""
    require(
        callable(value),
        f"expected {name} to be a function or an object of unilens.{name}s, got "
        f"{type(value).__name__}{remedy}",
    )


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Raise unless the value is one of the valid names."""
    names = list(valid)
    if not isinstance(value, str) or value not in names:
        raise ChoiceError(
            f"expected {name} to be one of {', '.join(names)}, got {shown(value)}", names
        )


def check_number(
    name: str, value: object, above: float | None = None, least: float | None = None
) -> float:
    """Return the value as a number; raise unless it is above `above` and at least `least`."""
    expected, number = "a finite number", as_number(value)
    fits = _is_finite(number)
    if above is not None:
        expected, fits = f"{expected} above {above:g}", fits and number > above  # type: ignore[operator]
    if least is not None:
        expected, fits = f"{expected} of at least {least:g}", fits and number >= least  # type: ignore[operator]
    require(fits, f"expected {name} to be {expected}, got {shown(value)}")
    return cast(float, number)


def shown(value: object) -> str:
    """Return a value for a message, in one line; arrays and tensors by their shape."""
    shape = getattr(value, "shape", None)
    if shape is not None and tuple(shape) != ():
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _is_finite(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(cast(float, value)) <= sys.float_info.max

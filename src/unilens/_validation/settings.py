"""Checks of settings; each error is one line."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterable
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

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


@dataclasses.dataclass(frozen=True)
class Check:
    """What the type of a setting, `Annotated[T, Check(...)]`, says of its values.

    Attributes:
        run: raises where a value, given with the name of the setting, is not valid.
        names: of the valid values that are names, for those who list them.
    """

    run: Callable[[str, Any], object]
    names: Callable[[], Iterable[str]] = tuple


def one_of(names: Iterable[str]) -> Check:
    """Return the check of a setting that is one of these names."""
    return Check(lambda name, value: check_choice(name, value, names), lambda: names)


def instance_of(kind: type) -> Check:
    """Return the check of a setting that is an object of a class."""

    def run(name: str, value: object) -> None:
        came = f"the class {value.__name__}" if isinstance(value, type) else shown(value)
        require(
            isinstance(value, kind),
            f"expected {name} to be an object of the class {kind.__name__}, got {came}",
        )

    return Check(run)


class Settings:
    """The base of dataclasses whose fields are settings: plain values, checked by their types.

    Before a class checks more of its fields, `plain` converts them, so that a setting may come from
    NumPy, pandas or torch, and the record of a result is plain data. Then their types are checked:
    `bool`, `Literal`, and whatever is annotated with a `Check`, such as `Count` and `Positive`;
    None is valid where the type has it.
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
        """Convert the fields, and check them by their types."""
        known = checks_of(cast(Callable[..., object], type(self)))
        for field in dataclasses.fields(cast(Any, self)):
            given = getattr(self, field.name)
            value = plain(field.name, given, isinstance(field.default, tuple))
            if value is not given:
                object.__setattr__(self, field.name, value)
            if field.name in known:
                known[field.name].run(field.name, value)


@functools.cache
def checks_of(build: Callable[..., object]) -> dict[str, Check]:
    """Return the checks of the settings of a class or function by their types, by name."""
    try:
        hints = get_type_hints(build, include_extras=True)
    except (NameError, TypeError, AttributeError):  # a user's types that are not there at run time
        return {}
    found = {name: _check_of(hint) for name, hint in hints.items()}
    return {name: check for name, check in found.items() if check is not None}


def _check_of(hint: Any) -> Check | None:
    if hint is bool:
        return Check(_check_switch)
    if get_origin(hint) is Literal:
        return one_of(get_args(hint))
    if get_origin(hint) is Annotated:
        return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Check)), None)
    some = [part for part in get_args(hint) if part is not type(None)]
    if get_origin(hint) not in (Union, UnionType) or len(some) != 1:
        return None
    inner = _check_of(some[0])
    if inner is None:
        return None
    run = inner.run
    return Check(lambda name, value: None if value is None else run(name, value), inner.names)


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


def _check_switch(name: str, value: object) -> None:
    """Raise unless the value is true or false."""
    require(
        isinstance(as_number(value), bool), f"expected {name} true or false, got {shown(value)}"
    )


def check_text(name: str, value: object) -> None:
    """Raise unless the value is a text."""
    require(isinstance(value, str), f"expected {name} to be a text, got {shown(value)}; pass a str")


def check_component(name: str, value: object) -> None:
    """Raise unless the value is a function or an object that can be called like one."""
    if isinstance(value, type):
        raise UnilensError(
            f"expected {name} to be an object, got the class {value.__name__}; "
            f"write {value.__name__}(...)"
        )
    values = name == "baseline" and isinstance(value, (Tensor, tuple, list, int, float))
    remedy = "; write unilens.baselines.FixedValues(torch.as_tensor(values))" if values else ""
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
    name: str,
    value: object,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """Return the value as a number; raise where it is not finite or not within the bounds."""
    number = cast(float, as_number(value))
    bounds = {" above": above, " of at least": least, " at most": most}
    given = (f"{words} {bound:g}" for words, bound in bounds.items() if math.isfinite(bound))
    require(
        _is_finite(number) and above < number and least <= number <= most,
        f"expected {name} to be a finite number{' and'.join(given)}, got {shown(value)}",
    )
    return number


def check_fraction(name: str, value: object) -> None:
    """Raise unless the value is a number above 0 and below 1."""
    number = check_number(name, value, above=0)
    require(number < 1, f"expected {name} below 1, got {value!r}")


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


Count = Annotated[int, Check(check_count)]
"""A whole number of at least 1."""
CountOrZero = Annotated[int, Check(functools.partial(check_count, least=0))]
TwoOrMore = Annotated[int, Check(functools.partial(check_count, least=2))]
Number = Annotated[float, Check(check_number)]
"""A finite number."""
Positive = Annotated[float, Check(functools.partial(check_number, above=0))]
NonNegative = Annotated[float, Check(functools.partial(check_number, least=0))]
Share = Annotated[float, Check(functools.partial(check_number, above=0, most=1))]
"""A number above 0 and at most 1."""
UnitInterval = Annotated[float, Check(functools.partial(check_number, least=0, most=1))]
"""A number from 0 to 1."""
Bounds = Annotated[tuple[float, float], Check(lambda name, value: check_bounds(value))]
"""The lowest and highest value of an input."""
Fraction = Annotated[float, Check(check_fraction)]
"""A number above 0 and below 1."""

"""What a baseline is, and the registry of baselines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from ..errors import ChoiceError, UnilensError, require
from ..gradients import Evaluator, Passes
from ..registry import Registry


@dataclass(frozen=True, slots=True)
class Found:
    """A baseline, and what the search for it has left.

    Attributes:
        values: `(B, *S)`.
        record: what the search wrote down, each entry `(B, ...)`.
        weight: of this baseline among several, one for all inputs or `(B,)`; they sum to one.
        walk: `(P, B, *S)`, the points of the search from the baseline to the input, both included.
    """

    values: Tensor
    record: Mapping[str, Tensor] = field(default_factory=dict)
    weight: float | Tensor = 1.0
    walk: Tensor | None = None


class Baseline(Protocol):
    """From a model, inputs `(B, *S)` and target `(B,)` to what the inputs are compared with.

    A plain function of this shape will do. `model` gives logits when called and gradients by its
    methods; the generator's initial seed is the run's seed (see `unilens.randomness`).

    Optional: `passes`, what the search costs per input; `count`, how many baselines there are for
    an input; `walks`, whether it keeps its walk; `check(model, inputs)`, which raises
    `NotApplicableError`.
    """

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | Found | Iterable[Found]:
        """Return the baseline `(B, *S)`, on the inputs' device and in their dtype, or several."""


baselines: Registry[Baseline] = Registry("baseline")


def found_baselines(found: Tensor | Found | Iterable[Found]) -> Iterable[Found]:
    """Return what a baseline gave, one by one."""
    if isinstance(found, Tensor):
        return [Found(found)]
    return [found] if isinstance(found, Found) else found


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


def passes_of(baseline: object) -> Passes:
    """Return what the search for a baseline costs per input: nothing where it does not say."""
    return cast(Passes, getattr(baseline, "passes", Passes(0, 0)))


def check_fits(part: object, model: Evaluator, inputs: Tensor) -> None:
    """Raise `NotApplicableError` where a baseline or a path says that it does not fit."""
    check = getattr(part, "check", None)
    if check is not None:
        check(model, inputs)


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


def check_single(baseline: object) -> None:
    """Raise where a baseline is several."""
    count = getattr(baseline, "count", 1)
    require(
        count == 1,
        f"expected one baseline per input, got {count}; several are for path methods, such as "
        "method='ig'",
    )


def check_choice(name: str, value: object, valid: Iterable[str]) -> None:
    """Raise unless the value is one of the valid names."""
    names = list(valid)
    if value not in names:
        raise ChoiceError(f"expected {name} to be one of {', '.join(names)}, got {value!r}", names)


def check_number(name: str, value: object, above: float | None = None) -> None:
    """Raise unless the value is a number, and larger than `above` where that is given."""
    number = _is_finite(value)
    expected = "a finite number" if above is None else f"a finite number above {above:g}"
    require(
        number and (above is None or value > above),  # type: ignore[operator]
        f"expected {name} to be {expected}, got {value!r}",
    )


def _is_finite(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)

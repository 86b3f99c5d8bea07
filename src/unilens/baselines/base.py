"""What a baseline is, and the registry of baselines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from ..errors import require
from ..gradients import Evaluator
from ..registry import Registry


@dataclass(frozen=True, slots=True)
class Found:
    """A baseline `(B, *S)` with the record of the search for it, each entry `(B, ...)`."""

    values: Tensor
    record: Mapping[str, Tensor] = field(default_factory=dict)


class Baseline(Protocol):
    """From a model, inputs `(B, *S)` and target `(B,)` to what the inputs are compared with.

    A plain function of this shape will do. `model` gives logits when called and gradients by its
    methods; the generator's initial seed is the run's seed (see `unilens.randomness`).
    """

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor | Found:
        """Return the baseline `(B, *S)`, on the inputs' device and in their dtype."""


baselines: Registry[Baseline] = Registry("baseline")


def check_bounds(bounds: tuple[float, float]) -> None:
    """Raise unless bounds are a pair of numbers, the lower first."""
    pair = isinstance(bounds, (tuple, list)) and len(bounds) == 2
    require(
        pair and all(_is_finite(one) for one in bounds) and bounds[0] < bounds[1],
        f"expected bounds to be (lowest, highest), got {bounds!r}",
    )


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

"""Baselines from the input box or the input alone, without the model and without randomness."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._validation.arrays import to_tensor
from .._validation.settings import check_bounds
from ..errors import UnilensError
from ..registry import Card
from .base import Baseline, baselines


@dataclass(frozen=True)
class Constant(Baseline):
    """Compare with one value everywhere, or with one value per channel.

    Args:
        value: a number, or one number per channel (dimension 1 of the inputs), in the inputs'
            units: for the bundled image models 0 is black and 1 is white.
    """

    value: float | Sequence[float] = 0.0

    @property
    def reads_axes_from(self) -> int | None:
        """None for a number, which does not depend on the channel axis; see `Baseline`."""
        return None if isinstance(self.value, (int, float)) else 3

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return map_inputs(model, self._filled, inputs)

    def _filled(self, inputs: Tensor) -> Tensor:
        try:
            value = torch.as_tensor(self.value, dtype=inputs.dtype, device=inputs.device)
        except (TypeError, ValueError, RuntimeError):
            raise UnilensError(
                f"expected value to be a number or one number per channel, got {self.value!r}"
            ) from None
        if value.ndim == 0:
            return torch.full_like(inputs, value.item())
        if value.ndim != 1 or inputs.ndim < 2 or len(value) != inputs.shape[1]:
            raise UnilensError(
                f"expected value to be a number or {inputs.shape[1]} numbers, one per channel, "
                f"got {tuple(value.shape)}"
            )
        return value.view(1, -1, *(1 for _ in inputs.shape[2:])).expand_as(inputs).clone()


@dataclass(frozen=True)
class ImageMean(Baseline):
    """Compare with the input's own mean: per channel over space, or over the features of a row."""

    reads_axes_from: ClassVar[int] = 3

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return map_inputs(model, _means, inputs)


def _means(inputs: Tensor) -> Tensor:
    dims = tuple(range(min(2, inputs.ndim - 1), inputs.ndim))
    return inputs.mean(dims, keepdim=True).expand_as(inputs).clone()


@dataclass(frozen=True)
class MaxDistance(Baseline):
    """Compare with the corner of the input box that is farthest from the input.

    Args:
        bounds: lowest and highest value of the box, in the inputs' units.
    """

    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        check_bounds(self.bounds)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        low, high = inputs.new_tensor(self.bounds)
        return torch.where(inputs < (low + high) / 2, high, low)


_IG = "Sundararajan et al. 2017, arXiv 1703.01365"
_STURMFELS = "Sturmfels et al. 2020, doi 10.23915/distill.00022"


@dataclass(frozen=True, eq=False)
class FixedValues(Baseline):
    """Compare with given values.

    Args:
        values: `(B, *S)`, or a shape that broadcasts to it, as `(1, *S)`; in the inputs' units.
        rows: `(m,)`, indices of the batch's inputs that are selected; None for all.
    """

    values: Tensor
    rows: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given: object = self.values
        with contextlib.suppress(TypeError, ValueError, RuntimeError):
            given = torch.tensor(given) if isinstance(given, tuple) else given
        values = to_tensor("the baseline's values", given)
        if not isinstance(values, Tensor):
            raise UnilensError(
                f"expected the baseline's values as a tensor, got {type(values).__name__}; convert "
                "them with torch.as_tensor"
            )
        object.__setattr__(self, "values", values)

    def of_rows(self, rows: Tensor) -> FixedValues:
        """Return the baseline for some inputs `(m,)` of a batch."""
        known = self.rows
        return FixedValues(self.values, rows if known is None else known.to(rows.device)[rows])

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the values do not fit the inputs `(B, *S)`."""
        self._expanded(inputs)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return self._expanded(inputs).clone()

    def _expanded(self, inputs: Tensor) -> Tensor:
        values = self.values.detach().to(inputs)
        try:
            if self.rows is not None and values.ndim == inputs.ndim and len(values) > 1:
                values = values[self.rows.to(values.device)]
            return values.expand_as(inputs)
        except (RuntimeError, IndexError):
            raise UnilensError(
                f"expected a baseline of the inputs' shape {tuple(inputs.shape)}, or one that "
                f"broadcasts to it, got {tuple(self.values.shape)}; give one row for all, or one "
                "per input"
            ) from None


baselines.add(Card("black", "constant", "0 everywhere", _IG), lambda: Constant(0.0))
baselines.add(Card("white", "constant", "1 everywhere", _STURMFELS), lambda: Constant(1.0))
baselines.add(Card("grey", "constant", "0.5 everywhere", _STURMFELS), lambda: Constant(0.5))
baselines.add(Card("constant", "constant", "any value, or one per channel", _IG), Constant)
baselines.add(
    Card("image_mean", "constant", "the input's own mean, per channel", _STURMFELS), ImageMean
)
baselines.add(
    Card("max_distance", "constant", "the farthest corner of the input box", _STURMFELS),
    MaxDistance,
)

"""Baselines of inputs that come in parts, and values that are given beforehand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import InputSpec, Name, reraise_for_input
from .._validation.arrays import as_number, to_tensor
from .._validation.settings import check_component
from ..errors import UnilensError, require
from .base import (
    Baseline,
    baseline_results,
    baselines,
    check_fits,
    check_single,
    passes_of,
    single,
)
from .constant import Constant


@dataclass(frozen=True, eq=False)
class Given:
    """Compare with values that are known beforehand.

    Args:
        values: in the inputs' units; `(B, *S)`, or what broadcasts to it, such as `(1, *S)`.
        rows: `(m,)`, of which inputs of the batch; None for all.
    """

    values: Tensor
    rows: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        values = to_tensor("the baseline's values", self.values)
        if not isinstance(values, Tensor):
            raise UnilensError(
                f"expected the baseline's values as a tensor, got {type(values).__name__}; convert "
                "them with torch.as_tensor"
            )
        object.__setattr__(self, "values", values)

    def of_rows(self, rows: Tensor) -> Given:
        """Return the baseline of some inputs of a batch."""
        known = self.rows
        return Given(self.values, rows if known is None else known.to(rows.device)[rows])

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


@dataclass(frozen=True, eq=False)
class ByPart:
    """Compare every part with a baseline of its own.

    Args:
        parts: for every part that is attributed, by name (a mapping) or position (a tuple): a
            registered baseline's name, a baseline that does not run the model, a number or values
            as for `Given`. In a tuple, None may stand for a part that is held fixed.

    Example:
        >>> import unilens
        >>> model = torch.nn.Bilinear(2, 3, 4).eval()
        >>> inputs = {"input1": torch.rand(5, 2), "input2": torch.rand(5, 3)}
        >>> compare = {"input1": "black", "input2": "image_mean"}
        >>> found = unilens.explain(model, inputs, method="ig", baseline=compare)
        >>> {name: tuple(values.shape) for name, values in found.values.items()}
        {'input1': (5, 2), 'input2': (5, 3)}
    """

    parts: Mapping[str, object] | tuple[object, ...]

    def __post_init__(self) -> None:
        require(
            isinstance(self.parts, (Mapping, tuple)) and len(self.parts) > 0,
            f"expected a baseline for every part, as a mapping or a tuple, got {self.parts!r}",
        )
        for name, part in self._baselines.items():
            try:
                check_component("baseline", part)
                check_single(part)
                require(
                    passes_of(part) == (0, 0),
                    f"{type(part).__name__} runs the model, which takes all parts together; give "
                    "it for all of them, as baseline=...",
                )
            except UnilensError as error:
                reraise_for_input(name, error)

    @property
    def _baselines(self) -> dict[Name, Baseline]:
        several = isinstance(self.parts, Mapping)
        items = self.parts.items() if several else enumerate(self.parts)  # type: ignore[union-attr]
        return {name: as_baseline(given) for name, given in items if given is not None}

    @property
    def reads_axes_from(self) -> int | None:
        """The fewest dimensions for which one of them reads axes; see `reads_axes`."""
        found = [getattr(part, "reads_axes_from", None) for part in self._baselines.values()]
        return min((least for least in found if least is not None), default=None)

    def of_rows(self, rows: Tensor) -> ByPart:
        """Return the baselines of some inputs of a batch."""
        mine = {
            name: part.of_rows(rows) if isinstance(part, Given) else part
            for name, part in self._baselines.items()
        }
        if isinstance(self.parts, Mapping):
            return ByPart(cast(Mapping[str, object], mine))
        return ByPart(tuple(mine.get(place) for place in range(len(self.parts))))

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the parts are not the inputs', or a baseline does not fit its part."""
        known = self._baselines
        for name, part in self._input_spec(model).split(inputs).items():
            try:
                check_fits(known[name], model, part)
            except UnilensError as error:
                reraise_for_input(name, error)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, D)`; see `Baseline`."""
        input_spec, known, values = self._input_spec(model), self._baselines, {}
        for name, part in input_spec.split(inputs).items():
            try:
                given = known[name](model, part, target, generator=generator)
            except UnilensError as error:
                reraise_for_input(name, error)
            values[name] = single(baseline_results(given)).values
        return input_spec.concat(values)

    def _input_spec(self, model: Evaluator) -> InputSpec:
        input_spec, mine = model.input_spec, list(self._baselines)
        if input_spec is None or set(input_spec.shapes) != set(mine):
            came = "a single tensor" if input_spec is None else f"the parts {input_spec}"
            raise UnilensError(
                f"expected inputs with the parts {', '.join(map(str, mine))}, each of which has a "
                f"baseline, got {came}; name the same parts in inputs and baseline"
            )
        return input_spec


def as_baseline(given: object) -> Baseline:
    """Return the baseline that a name, a number or values stand for; a baseline is its own."""
    if isinstance(given, str):
        return baselines[given]()
    given = to_tensor("baseline", as_number(given))
    if isinstance(given, Tensor):
        return Given(given)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return Constant(float(given))
    return cast(Baseline, given)

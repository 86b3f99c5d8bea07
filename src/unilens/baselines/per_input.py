"""Baselines for models of several inputs, one for each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.packing import InputSpec, Name, reraise_for_input
from .._validation.arrays import as_number, to_tensor
from ..errors import UnilensError, require
from .base import Baseline, baseline_results, check_single, fewest_dimensions, single, to_baseline
from .constant import Constant, FixedValues


@dataclass(frozen=True, eq=False)
class PerInput(Baseline):
    """Compare each input of a model that takes several with a separate baseline.

    Args:
        baselines: one for each attributed input, by name (a mapping) or position (a tuple): the
            name of a registered baseline, a baseline that does not run the model, a number, or
            values as for `FixedValues`. A tuple may have None at the position of a frozen input.

    Example:
        >>> import unilens
        >>> model = torch.nn.Bilinear(2, 3, 4).eval()
        >>> inputs = {"input1": torch.rand(5, 2), "input2": torch.rand(5, 3)}
        >>> baselines = {"input1": "black", "input2": "image_mean"}
        >>> attribution = unilens.explain(model, inputs, method="ig", baseline=baselines)
        >>> {name: tuple(values.shape) for name, values in attribution.values.items()}
        {'input1': (5, 2), 'input2': (5, 3)}
    """

    baselines: Mapping[str, object] | tuple[object, ...]

    def __post_init__(self) -> None:
        require(
            isinstance(self.baselines, (Mapping, tuple)) and len(self.baselines) > 0,
            f"expected a baseline for each input, as a mapping or a tuple, got {self.baselines!r}",
        )
        for name, baseline in self._baselines.items():
            try:
                check_single(baseline)
                require(
                    baseline.passes == (0, 0),
                    f"{type(baseline).__name__} runs the model, which takes all inputs together; "
                    "give it for all of them, as baseline=...",
                )
            except UnilensError as error:
                reraise_for_input(name, error)

    @property
    def _baselines(self) -> dict[Name, Baseline]:
        named = isinstance(self.baselines, Mapping)
        items = self.baselines.items() if named else enumerate(self.baselines)  # type: ignore[union-attr]
        return {name: as_baseline(given) for name, given in items if given is not None}

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest value among the baselines; see `Baseline`."""
        return fewest_dimensions(self._baselines.values())

    def of_rows(self, rows: Tensor) -> PerInput:
        """Return the baselines for some inputs `(m,)` of a batch."""
        selected = {name: baseline.of_rows(rows) for name, baseline in self._baselines.items()}
        if isinstance(self.baselines, Mapping):
            return PerInput(cast(Mapping[str, object], selected))
        return PerInput(tuple(selected.get(number) for number in range(len(self.baselines))))

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the names are not the inputs', or a baseline does not fit its input."""
        known = self._baselines
        for name, values in self._input_spec(model).split(inputs).items():
            try:
                known[name].check(model, values)
            except UnilensError as error:
                reraise_for_input(name, error)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, D)`; see `Baseline`."""
        input_spec, known, results = self._input_spec(model), self._baselines, {}
        for name, values in input_spec.split(inputs).items():
            try:
                given = known[name](model, values, target, generator=generator)
            except UnilensError as error:
                reraise_for_input(name, error)
            results[name] = single(baseline_results(given)).values
        return input_spec.concat(results)

    def _input_spec(self, model: Evaluator) -> InputSpec:
        input_spec, names = model.input_spec, list(self._baselines)
        if input_spec is None or set(input_spec.shapes) != set(names):
            actual = "a single tensor" if input_spec is None else f"the inputs {input_spec}"
            raise UnilensError(
                f"expected the inputs {', '.join(map(str, names))}, each of which has a baseline, "
                f"got {actual}; use the same names in inputs and baseline"
            )
        return input_spec


def as_baseline(given: object) -> Baseline:
    """Return the baseline given by a name, a number or values; return a baseline as it is."""
    given = to_tensor("baseline", as_number(given))
    if isinstance(given, Tensor):
        return FixedValues(given)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return Constant(float(given))
    return to_baseline(given)

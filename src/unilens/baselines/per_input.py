"""Models of several inputs: a baseline for each."""

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
from .base import Baseline, baseline_results, check_single, fewest_read, single, to_baseline
from .constant import Constant, FixedValues


@dataclass(frozen=True, eq=False)
class PerInput(Baseline):
    """Compare each input of a model of several with a baseline of its own.

    Args:
        baselines: for each input that is attributed, by name (a mapping) or position (a tuple): a
            registered baseline's name, a baseline that does not run the model, a number or values
            as for `FixedValues`. In a tuple, None may stand for an input that is frozen.

    Example:
        >>> import unilens
        >>> model = torch.nn.Bilinear(2, 3, 4).eval()
        >>> inputs = {"input1": torch.rand(5, 2), "input2": torch.rand(5, 3)}
        >>> compare = {"input1": "black", "input2": "image_mean"}
        >>> found = unilens.explain(model, inputs, method="ig", baseline=compare)
        >>> {name: tuple(values.shape) for name, values in found.values.items()}
        {'input1': (5, 2), 'input2': (5, 3)}
    """

    baselines: Mapping[str, object] | tuple[object, ...]

    def __post_init__(self) -> None:
        require(
            isinstance(self.baselines, (Mapping, tuple)) and len(self.baselines) > 0,
            f"expected a baseline for each input, as a mapping or a tuple, got {self.baselines!r}",
        )
        for name, part in self._baselines.items():
            try:
                check_single(part)
                require(
                    part.passes == (0, 0),
                    f"{type(part).__name__} runs the model, which takes all inputs together; give "
                    "it for all of them, as baseline=...",
                )
            except UnilensError as error:
                reraise_for_input(name, error)

    @property
    def _baselines(self) -> dict[Name, Baseline]:
        several = isinstance(self.baselines, Mapping)
        items = self.baselines.items() if several else enumerate(self.baselines)  # type: ignore[union-attr]
        return {name: as_baseline(given) for name, given in items if given is not None}

    @property
    def reads_axes_from(self) -> int | None:
        """The fewest dimensions for which one of them reads axes; see `reads_axes`."""
        return fewest_read(self._baselines.values())

    def of_rows(self, rows: Tensor) -> PerInput:
        """Return the baselines of some inputs of a batch."""
        mine = {name: part.of_rows(rows) for name, part in self._baselines.items()}
        if isinstance(self.baselines, Mapping):
            return PerInput(cast(Mapping[str, object], mine))
        return PerInput(tuple(mine.get(place) for place in range(len(self.baselines))))

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the parts are not the inputs', or a baseline does not fit its part."""
        known = self._baselines
        for name, part in self._input_spec(model).split(inputs).items():
            try:
                known[name].check(model, part)
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
    given = to_tensor("baseline", as_number(given))
    if isinstance(given, Tensor):
        return FixedValues(given)
    if isinstance(given, (int, float)) and not isinstance(given, bool) and math.isfinite(given):
        return Constant(float(given))
    return to_baseline(given)

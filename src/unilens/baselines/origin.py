"""The origin of a search for a baseline: the input, or another baseline."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.packing import map_inputs
from .._ops.spatial import has_regions
from .._validation.settings import Check, Settings, check_choice
from .base import (
    Baseline,
    baseline_results,
    baselines,
    check_single,
    single,
    to_baseline,
)
from .blur import Blur, blurred

_NOT_BASELINES = ("input", "auto")
"""Origins that are not names of baselines."""
_SEARCHED = "unlearned"
"""The baseline whose search has the origin, and which cannot be one."""


@dataclass(frozen=True)
class Origin(Settings):
    """The point from which a search starts.

    Args:
        given: "input"; "auto", which blurs images `(C, H, W)` and volumes or clips `(C, D, H, W)`,
            also among several named inputs, and takes all other inputs as they are; a registered
            baseline by name, or a baseline.
    """

    given: str | Baseline

    def check_setting(self) -> None:
        """Raise unless a search can start from it."""
        if isinstance(self.given, str) and self.given not in _NOT_BASELINES:
            check_choice("origin", self.given, _origin_names())
        if self._baseline is not None:
            check_single(self._baseline)

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest `inputs.ndim` for which the channel axis matters; see `Baseline`."""
        if self.given == "auto":
            return 4
        return None if self._baseline is None else self._baseline.reads_axes_from

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(0, 0) if self._baseline is None else self._baseline.passes

    def check_fits(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where it does not fit the inputs `(B, *S)`."""
        if self._baseline is not None:
            self._baseline.check(model, inputs)

    def is_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether it is the inputs `(B, *S)` themselves."""
        if self.given == "auto":
            blurs = map_inputs(
                model, lambda values: torch.full_like(values, has_regions(values)), inputs
            )
            return not bool(blurs.any())
        return self.given == "input"

    def point(
        self,
        model: Evaluator,
        inputs: Tensor,
        target: Tensor,
        units: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return the first point of the search `(B, *S)`; a blur is taken of inputs / units."""
        if self.is_input(model, inputs):
            return inputs
        if self._baseline is None:
            return map_inputs(model, _blurred_if_image, inputs / units) * units
        given = self._baseline(model, inputs, target, generator=generator)
        return single(baseline_results(given)).values

    @property
    def _baseline(self) -> Baseline | None:
        if isinstance(self.given, str) and self.given in _NOT_BASELINES:
            return None
        return to_baseline(self.given)


def _origin_names() -> list[str]:
    """Return the names of origins: "input", "auto", and single baselines that need no settings."""
    single_baselines = [
        name
        for name, entry in baselines.items()
        if name != _SEARCHED
        and inspect.Parameter.empty not in entry.settings.values()
        and entry().count == 1
    ]
    return [*_NOT_BASELINES, *single_baselines]


def _blurred_if_image(values: Tensor) -> Tensor:
    return blurred(values, Blur().sigma) if has_regions(values) else values


AnyOrigin = Annotated[
    str | Baseline | Sequence[str | Baseline], Check(lambda name, value: None, _origin_names)
]
"""A setting: an origin or several; `Origin.check_setting` checks them."""

"""Where a search for a baseline begins: at the input, or at another baseline."""

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

OWN = ("input", "auto")
"""Origins that are no baselines: the input, and what suits it."""
SEARCHED = "unlearned"
"""The baseline whose search this is the origin of."""


@dataclass(frozen=True)
class Origin(Settings):
    """Where a search begins.

    Args:
        given: "input"; "auto", the blurred input for images `(C, H, W)`, volumes or clips
            `(C, D, H, W)` and parts that are such, the input for all else; a registered baseline by
            name, or a baseline.
    """

    given: str | Baseline

    def check_setting(self) -> None:
        """Raise unless it is one that a search can begin from."""
        if isinstance(self.given, str) and self.given not in OWN:
            check_choice("origin", self.given, origin_names())
        if self._baseline is not None:
            check_single(self._baseline)

    @property
    def reads_axes_from(self) -> int | None:
        """The fewest dimensions for which it reads axes; see `reads_axes`."""
        if self.given == "auto":
            return 4
        return None if self._baseline is None else self._baseline.reads_axes_from

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(0, 0) if self._baseline is None else self._baseline.passes

    def check_fits(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where it needs other inputs."""
        if self._baseline is not None:
            self._baseline.check(model, inputs)

    def is_input(self, model: Evaluator, inputs: Tensor) -> bool:
        """Whether it is the inputs `(B, *S)` themselves."""
        if self.given == "auto":
            kinds = map_inputs(model, lambda part: torch.full_like(part, has_regions(part)), inputs)
            return not bool(kinds.any())
        return self.given == "input"

    def place(
        self,
        model: Evaluator,
        inputs: Tensor,
        target: Tensor,
        units: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Return where the search begins `(B, *S)`; the units are those of the search."""
        if self.is_input(model, inputs):
            return inputs
        if self._baseline is None:
            return map_inputs(model, _blurred_if_image, inputs / units) * units
        given = self._baseline(model, inputs, target, generator=generator)
        return single(baseline_results(given)).values

    @property
    def _baseline(self) -> Baseline | None:
        if isinstance(self.given, str) and self.given in OWN:
            return None
        return to_baseline(self.given)


def origin_names() -> list[str]:
    """Return an origin's own names, and those of single baselines that need no setting."""
    others = [
        name
        for name, entry in baselines.items()
        if name != SEARCHED
        and inspect.Parameter.empty not in entry.settings.values()
        and entry().count == 1
    ]
    return [*OWN, *others]


def _blurred_if_image(part: Tensor) -> Tensor:
    return blurred(part, Blur().sigma) if has_regions(part) else part


AnyOrigin = Annotated[
    str | Baseline | Sequence[str | Baseline], Check(lambda name, value: None, origin_names)
]
"""A setting: an origin, or several, each checked where it is read."""

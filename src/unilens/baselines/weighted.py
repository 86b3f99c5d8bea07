"""Several weighted baselines."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.output_detection import output_spec
from .._ops.precision import to_float64
from .._ops.random import generator_of
from .._validation.settings import Check, check_choice
from ..errors import require
from ..registry import Card
from .base import (
    Baseline,
    BaselineResult,
    baseline_results,
    baselines,
    check_several,
    fewest_dimensions,
    to_baselines,
)

_WEIGHTS = ("equal", "confidence")
Weights = Annotated[str | Sequence[float], Check(lambda name, value: None, lambda: _WEIGHTS)]
"""A setting: "equal", "confidence", or a number for each baseline."""


@dataclass(frozen=True)
class Weighted(Baseline):
    """Compare with several baselines; the attribution is the weighted mean over them.

    Args:
        baselines: names of registered baselines with their defaults, or baselines.
        weights: "equal"; "confidence", in proportion to the fall of the target's probability from
            the input to the baseline (equal where it falls at none); or a number for each.

    References:
        Erion et al. 2021, arXiv 1906.10670, for the mean over baselines. "Weighted Integrated
        Gradients", arXiv 2505.03201, weights them by a fitness; weights by the fall of confidence
        are from unilens.
    """

    baselines: Sequence[str | Baseline] = ("black", "white", "blur")
    weights: Weights = "equal"

    def __post_init__(self) -> None:
        check_several("baselines", self.baselines)
        if isinstance(self.weights, str):
            check_choice("weights", self.weights, _WEIGHTS)
            return
        given = self.weights if isinstance(self.weights, (list, tuple)) else ()
        numbers = all(
            isinstance(weight, (int, float))
            and not isinstance(weight, bool)
            and 0 <= weight < math.inf
            for weight in given
        )
        require(
            numbers and len(given) == len(self.baselines) and sum(given) > 0,
            f"expected weights to be {' or '.join(_WEIGHTS)} or {len(self.baselines)} numbers, "
            f"none negative and not all zero, got {self.weights!r}",
        )

    @property
    def _components(self) -> list[Baseline]:
        return to_baselines(self.baselines)

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest value among the baselines; see `Baseline`."""
        return fewest_dimensions(self._components)

    @property
    def count(self) -> int:
        """Baselines per input."""
        return sum(baseline.count for baseline in self._components)

    @property
    def has_trajectory(self) -> bool:
        """Whether all of the baselines keep their trajectories."""
        return all(baseline.has_trajectory for baseline in self._components)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        total = PassCount(1 + self.count if self.weights == "confidence" else 0, 0)
        for baseline in self._components:
            total += baseline.passes
        return total

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where one of the baselines does not fit."""
        for baseline in self._components:
            baseline.check(model, inputs)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Iterable[BaselineResult]:
        """Return the baselines with their weights; see `Baseline`."""
        groups = []
        for number, baseline in enumerate(self._components):
            derived = generator_of("baseline", number, generator)
            results = baseline(model, inputs, target, generator=derived)
            groups.append(list(baseline_results(results)))
        weights = self._weights(model, inputs, target, groups)
        return [
            dataclasses.replace(result, weight=result.weight * weight)
            for group, weight in zip(groups, weights, strict=True)
            for result in group
        ]

    def _weights(
        self, model: Evaluator, inputs: Tensor, target: Tensor, groups: list[list[BaselineResult]]
    ) -> Iterator[float | Tensor]:
        """Yield the weight of each group, a number or `(B,)`; they sum to one."""
        if self.weights == "confidence":
            return iter(self._confidence_weights(model, inputs, target, groups))
        given = [1.0] * len(groups) if isinstance(self.weights, str) else self.weights
        return (float(weight) / sum(given) for weight in given)

    def _confidence_weights(
        self, model: Evaluator, inputs: Tensor, target: Tensor, groups: list[list[BaselineResult]]
    ) -> Tensor:
        """Return the weights `(R, B)` of R groups by the fall of the target's probability."""
        spec = output_spec(model, inputs)
        spec.check_classes()

        def confidence(points: Tensor) -> Tensor:
            return spec.confidence(to_float64(model(points)), target)

        at_input = confidence(inputs)
        falls = torch.stack(
            [
                sum(
                    (result.weight * (at_input - confidence(result.values)) for result in group),
                    start=torch.zeros_like(at_input),
                )
                for group in groups
            ]
        ).clamp_min(0)
        total = falls.sum(0)
        return torch.where(total > 0, falls / total, 1 / len(groups)).to(inputs.dtype)


baselines.add(
    Card(
        "weighted",
        "several",
        "several baselines, weighted",
        "Erion et al. 2021, arXiv 1906.10670",
        traits=("images",),
    ),
    Weighted,
)

"""Random baselines; the draw for an input depends on the seed and on that input alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._ops.random import per_input, standard_normal, uniform
from .._validation.references import check_references, references_for
from .._validation.settings import Bounds, Number, Positive
from ..registry import Card
from .base import Baseline, baselines


@dataclass(frozen=True)
class UniformNoise(Baseline):
    """Compare with independent uniform draws from the input box.

    Args:
        bounds: lowest and highest value of the box, in the inputs' units.
    """

    bounds: Bounds = (0.0, 1.0)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        low, high = self.bounds
        shape = inputs.shape[1:]
        return per_input(inputs, generator, lambda g: uniform(shape, g)) * (high - low) + low


@dataclass(frozen=True)
class GaussianNoise(Baseline):
    """Compare with gaussian draws, clipped to the input box.

    Args:
        std: standard deviation, in the inputs' units.
        mean: centre of the draws; None centres them on the input itself.
        bounds: lowest and highest value of the box.
    """

    std: Positive = 0.25
    mean: Number | None = 0.5
    bounds: Bounds = (0.0, 1.0)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        shape = inputs.shape[1:]
        noise = per_input(inputs, generator, lambda g: standard_normal(shape, g))
        centre = inputs if self.mean is None else self.mean
        return (centre + self.std * noise).clamp(*self.bounds)


@dataclass(frozen=True, eq=False)
class DatasetSample(Baseline):
    """Compare with another real input, drawn at random from the references.

    Args:
        references: `(R, *S)`, of the inputs' shape after the first dimension.
    """

    references: Tensor

    def __post_init__(self) -> None:
        check_references(self.references)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        references = references_for("dataset_sample", self.references, inputs)
        count = len(references)
        chosen = per_input(inputs, generator, lambda g: torch.randint(count, (), generator=g))
        return references[chosen.long()]


_STURMFELS = "Sturmfels et al. 2020, doi 10.23915/distill.00022"
baselines.add(
    Card("uniform_noise", "noise", "uniform draws from the input box", _STURMFELS, False),
    UniformNoise,
)
baselines.add(
    Card("gaussian_noise", "noise", "clipped gaussian draws", _STURMFELS, False), GaussianNoise
)
baselines.add(
    Card("dataset_sample", "noise", "another real input; references=(R, *S)", _STURMFELS, False),
    DatasetSample,
)

"""Objectives of attacks: how far a map has moved from the one at the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops.precision import to_float64
from ...errors import NotApplicableError
from ..maps import reduce_channels
from ..similarities import top_count, top_shares

Objective = Callable[[Tensor], Tensor]
"""From maps `(B, *S)` to how far each has moved `(B,)`; differentiable."""


@dataclass(frozen=True, slots=True)
class ObjectiveSpec:
    """What an objective is built from.

    Attributes:
        first: `(B, *S)`, the maps at the inputs.
        reduction: "sum", values summed over channels, or "abs", sums of absolute values.
        k: how many positions are the top; below 1 it is a fraction of them.
        generators: one per input.
    """

    first: Tensor
    reduction: str
    k: float | None
    generators: list[torch.Generator]


def _top_k(spec: ObjectiveSpec) -> Objective:
    """Push down what the k positions that counted most hold of the map: -sum_top A / sum |A|."""
    first = reduce_channels(spec.first, spec.reduction).flatten(1)
    shares = top_shares(first, top_count(spec.k, first.shape[1]))

    def objective(values: Tensor) -> Tensor:
        counted = reduce_channels(values, spec.reduction).flatten(1)
        return -(shares * counted).sum(1) / counted.abs().sum(1)

    return objective


def _mass_centre(spec: ObjectiveSpec) -> Objective:
    """Move the centre of mass of the absolute values: its squared distance, in positions."""
    if spec.first.ndim < 3:
        raise NotApplicableError(
            "expected images (B, C, H, W) or signals (B, C, L) for objective='mass_centre', got "
            f"{tuple(spec.first.shape)}; a table has no positions, use objective='top_k'"
        )
    axes = [torch.arange(side, device=spec.first.device) for side in spec.first.shape[2:]]
    where = torch.stack(
        [to_float64(axis).flatten() for axis in torch.meshgrid(*axes, indexing="ij")]
    )

    def centre(values: Tensor) -> Tensor:
        mass = reduce_channels(values, "abs").flatten(1)
        return (mass.unsqueeze(1) * where).sum(2) / mass.sum(1, keepdim=True)

    before = centre(spec.first)
    return lambda values: (centre(values) - before).square().sum(1)


def _random(spec: ObjectiveSpec) -> Objective:
    """Move the map in a direction drawn at random: r . (A - A at the input), |r| = 1."""
    shape = spec.first.shape[1:]
    drawn = [torch.randn(shape, generator=one, dtype=torch.float64) for one in spec.generators]
    before = to_float64(spec.first)
    way = torch.stack([one / one.norm() for one in drawn]).to(before)
    return lambda values: (way * (to_float64(values) - before)).flatten(1).sum(1)


def _difference(spec: ObjectiveSpec) -> Objective:
    """Move the map in any direction: the mean squared difference of its values."""
    before = to_float64(spec.first)
    return lambda values: (to_float64(values) - before).square().flatten(1).mean(1)


OBJECTIVES: dict[str, Callable[[ObjectiveSpec], Objective]] = {
    "top_k": _top_k,
    "mass_centre": _mass_centre,
    "random": _random,
    "difference": _difference,
}
FLAT_AT_INPUT = {"mass_centre", "difference"}
"""Objectives that have no slope at the input itself: an attack starts beside it."""


def slope(objective: Objective, values: Tensor) -> Tensor:
    """Return the gradient of an objective in the maps `(B, *S)`; zero where it is undefined."""
    with torch.enable_grad():
        leaf = to_float64(values).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(objective(leaf).sum(), leaf)
    return gradient.nan_to_num(0.0, 0.0, 0.0).to(values.dtype)

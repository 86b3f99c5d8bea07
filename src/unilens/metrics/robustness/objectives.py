"""What an attack on a map raises: how far the map has moved from the one at the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops.precision import to_float64
from ...errors import NotApplicableError
from ..maps import relevance_of
from ..similarities import top_count, top_shares

Goal = Callable[[Tensor], Tensor]
"""From maps `(B, *S)` to how far each has moved `(B,)`; differentiable."""


@dataclass(frozen=True, slots=True)
class Aim:
    """What an objective is made of.

    Attributes:
        first: `(B, *S)`, the maps at the inputs.
        relevance: "attribution", values summed over channels, or "saliency", absolute values.
        k: how many places are the top; below 1 it is a fraction of them.
        generators: one per input.
    """

    first: Tensor
    relevance: str
    k: float | None
    generators: list[torch.Generator]


def top_k(aim: Aim) -> Goal:
    """Push down what the k places that counted most hold of the map: -sum_top A / sum |A|."""
    first = relevance_of(aim.first, aim.relevance).flatten(1)
    shares = top_shares(first, top_count(aim.k, first.shape[1]))

    def goal(values: Tensor) -> Tensor:
        counted = relevance_of(values, aim.relevance).flatten(1)
        return -(shares * counted).sum(1) / counted.abs().sum(1)

    return goal


def mass_centre(aim: Aim) -> Goal:
    """Move the centre of mass of the absolute values: its squared distance, in places."""
    if aim.first.ndim < 3:
        raise NotApplicableError(
            "expected images (B, C, H, W) or signals (B, C, L) for objective='mass_centre', got "
            f"{tuple(aim.first.shape)}; a table has no places, use objective='top_k'"
        )
    axes = [torch.arange(side, device=aim.first.device) for side in aim.first.shape[2:]]
    where = torch.stack(
        [to_float64(axis).flatten() for axis in torch.meshgrid(*axes, indexing="ij")]
    )

    def centre(values: Tensor) -> Tensor:
        mass = relevance_of(values, "saliency").flatten(1)
        return (mass.unsqueeze(1) * where).sum(2) / mass.sum(1, keepdim=True)

    before = centre(aim.first)
    return lambda values: (centre(values) - before).square().sum(1)


def random(aim: Aim) -> Goal:
    """Move the map in a direction drawn at random: r . (A - A at the input), |r| = 1."""
    shape = aim.first.shape[1:]
    drawn = [torch.randn(shape, generator=one, dtype=torch.float64) for one in aim.generators]
    before = to_float64(aim.first)
    way = torch.stack([one / one.norm() for one in drawn]).to(before)
    return lambda values: (way * (to_float64(values) - before)).flatten(1).sum(1)


def difference(aim: Aim) -> Goal:
    """Move the map anyhow: the mean squared difference of its values."""
    before = to_float64(aim.first)
    return lambda values: (to_float64(values) - before).square().flatten(1).mean(1)


OBJECTIVES: dict[str, Callable[[Aim], Goal]] = {
    "top_k": top_k,
    "mass_centre": mass_centre,
    "random": random,
    "difference": difference,
}
AT_REST = {"mass_centre", "difference"}
"""Objectives that have no slope at the input itself: an attack starts beside it."""


def slope(goal: Goal, values: Tensor) -> Tensor:
    """Return the gradient of a goal in the maps `(B, *S)`; zero where it is undefined."""
    with torch.enable_grad():
        leaf = to_float64(values).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(goal(leaf).sum(), leaf)
    return gradient.nan_to_num(0.0, 0.0, 0.0).to(values.dtype)

"""Operations on the shift of a search: one value per grid cell, a given length, a line search."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._ops.precision import expand_like, l2_norm
from .._ops.spatial import grid_cell_index, sum_by_cell

LINE_SEARCH_TRIES = 3
"""Lengths that a line search tries; each is a quarter of the one before."""


def by_cells(values: Tensor, grid: int) -> Tensor:
    """Return images `(B, C, H, W)` with each cell of a `grid` x `grid` grid set to its mean."""
    cell = grid_cell_index(values.shape[2:], grid).to(values.device)
    means = sum_by_cell(values.flatten(0, 1), cell) / cell.flatten().bincount()
    return means[:, cell].view_as(values)


def to_length(values: Tensor, length: Tensor | float) -> Tensor:
    """Scale values `(B, *S)` to l2 norms `(B,)`, or to the same one; inputs of zeros stay."""
    norm = l2_norm(values)
    return values * expand_like(torch.where(norm > 0, length / norm, 0.0), values)


def step_down(
    loss_at: Callable[[Tensor, Tensor], Tensor],
    project: Callable[[Tensor, Tensor], Tensor],
    shift: Tensor,
    loss: Tensor,
    slope: Tensor,
    longest: Tensor,
) -> tuple[Tensor, Tensor]:
    """Take a step against the slope that lowers the loss, found by backtracking.

    The first length is that at which the linear model of the loss is zero (Polyak's step). It is
    divided by four until the loss falls; where that takes more than `LINE_SEARCH_TRIES` lengths,
    the shift stays.

    Args:
        loss_at: from shifts `(b, *S)` and their row numbers `(b,)` to losses `(b,)`.
        project: from the same to admissible shifts `(b, *S)`.
        shift: `(B, *S)`.
        loss: `(B,)`, at the shift, not negative.
        slope: `(B, *S)`, the gradient of the loss.
        longest: `(B,)`, upper bounds of the length.

    Returns:
        Shifts `(B, *S)` and their losses `(B,)`.

    References:
        Polyak, "Introduction to Optimization", 1987, section 5.3; Armijo 1966,
        doi 10.2140/pjm.1966.16.1.
    """
    length = torch.minimum(loss / l2_norm(slope), longest)
    rows = torch.arange(len(loss), device=loss.device)
    lowered, lowest = shift.clone(), loss.clone()
    for _ in range(LINE_SEARCH_TRIES):
        candidates = project(shift[rows] - to_length(slope[rows], length[rows]), rows)
        losses = loss_at(candidates, rows)
        falls = losses < loss[rows]
        lowered[rows[falls]], lowest[rows[falls]] = candidates[falls], losses[falls]
        rows, length = rows[~falls], length / 4
        if not len(rows):
            break
    return lowered, lowest

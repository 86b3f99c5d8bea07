"""What a search does to its shift: the same in each cell, smooth, of a length."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._ops.precision import expand_like, l2_norm
from .._ops.spatial import grid_cell_index, sum_by_cell


def by_cells(values: Tensor, grid: int) -> Tensor:
    """Return images of which each cell of a `grid` x `grid` grid holds the mean of its values."""
    cell = grid_cell_index(values.shape[2:], grid).to(values.device)
    means = sum_by_cell(values.flatten(0, 1), cell) / cell.flatten().bincount()
    return means[:, cell].view_as(values)


def roughness(shift: Tensor) -> Tensor:
    """Return the gradient of |D d|^2 / 2, D the differences between neighbours along every side.

    >>> roughness(torch.tensor([[[[0.0, 1.0, 0.0]]]])).tolist()
    [[[[-1.0, 2.0, -1.0]]]]
    """
    total = torch.zeros_like(shift)
    for dim in range(2 - shift.ndim, 0):
        difference = shift.diff(dim=dim)
        before, after = [0] * 2 * (shift.ndim - 2), [0] * 2 * (shift.ndim - 2)
        before[2 * (-1 - dim)] = after[2 * (-1 - dim) + 1] = 1
        total = total + pad(difference, before) - pad(difference, after)
    return total


def to_length(values: Tensor, length: Tensor) -> Tensor:
    """Scale each input to an l2 norm `(B,)`; one that is zero has no direction and stays zero."""
    norm = l2_norm(values)
    return values * expand_like(torch.where(norm > 0, length / norm, 0.0), values)

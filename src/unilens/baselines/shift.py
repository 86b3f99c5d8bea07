"""Operations on the shift of a search: one value per grid cell, and a given length."""

from __future__ import annotations

import torch
from torch import Tensor

from .._ops.precision import expand_like, l2_norm
from .._ops.spatial import grid_cell_index, sum_by_cell


def by_cells(values: Tensor, grid: int) -> Tensor:
    """Return images `(B, C, H, W)` with each cell of a `grid` x `grid` grid set to its mean."""
    cell = grid_cell_index(values.shape[2:], grid).to(values.device)
    means = sum_by_cell(values.flatten(0, 1), cell) / cell.flatten().bincount()
    return means[:, cell].view_as(values)


def to_length(values: Tensor, length: Tensor) -> Tensor:
    """Scale values `(B, *S)` to l2 norms `(B,)`; an input of zeros has no direction and stays."""
    norm = l2_norm(values)
    return values * expand_like(torch.where(norm > 0, length / norm, 0.0), values)

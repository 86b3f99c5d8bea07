"""Spatial positions of an input: pixels, samples of a signal, or features, without channels."""

from __future__ import annotations

import torch
from torch import Tensor

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""Linear modes of `torch.nn.functional.interpolate`, by the number of spatial dimensions."""


def spatial_shape_of(shape: torch.Size) -> torch.Size:
    """Return the spatial shape of an input `*S`, without the channels."""
    return shape[1:] if len(shape) > 1 else shape


def has_regions(inputs: Tensor) -> bool:
    """Whether inputs are images `(B, C, H, W)`, or volumes or clips `(B, C, D, H, W)`.

    >>> has_regions(torch.zeros(2, 3, 8, 8)), has_regions(torch.zeros(2, 5))
    (True, False)
    """
    return inputs.ndim in (4, 5)


def broadcast_over_channels(maps: Tensor, inputs: Tensor) -> Tensor:
    """Spread maps `(B, *spatial_shape)` evenly over channels: `(B, *S)` with the maps as sums."""
    if inputs.ndim > 2:
        maps = (maps / inputs.shape[1]).unsqueeze(1)
    return maps.to(inputs.dtype).expand_as(inputs).clone()


def grid_cell_index(spatial_shape: torch.Size, cells: int | None) -> Tensor:
    """Return the cell of each position `(*spatial_shape)` in a grid of `cells` per side.

    Cells differ in size by one position where the side is not a multiple of `cells`; a side shorter
    than `cells`, or any side where `cells` is None, has one cell per position.
    """
    number = torch.zeros(spatial_shape, dtype=torch.long)
    for dim, side in enumerate(spatial_shape):
        count = side if cells is None else min(cells, side)
        along = torch.arange(side) * count // side
        number = number * count + along.view(-1, *(1,) * (len(spatial_shape) - dim - 1))
    return number


def sum_by_cell(values: Tensor, cell: Tensor) -> Tensor:
    """Return the sum of values `(B, *spatial_shape)` over each cell `(B, cells)`."""
    sums = values.new_zeros(len(values), int(cell.max()) + 1)
    return sums.index_add_(1, cell.flatten(), values.flatten(1))

"""Places of an input: pixels, samples of a signal, features; all channels of one are one place."""

from __future__ import annotations

import torch
from torch import Tensor

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
"""How torch calls linear interpolation, by the number of spatial dimensions."""


def spatial_shape_of(shape: torch.Size) -> torch.Size:
    """Return the shape of the places of an input `*S`: without the channels."""
    return shape[1:] if len(shape) > 1 else shape


def has_regions(inputs: Tensor) -> bool:
    """Whether inputs are images `(B, C, H, W)`, or volumes or clips `(B, C, D, H, W)`.

    >>> has_regions(torch.zeros(2, 3, 8, 8)), has_regions(torch.zeros(2, 5))
    (True, False)
    """
    return inputs.ndim in (4, 5)


def broadcast_over_channels(maps: Tensor, inputs: Tensor) -> Tensor:
    """Return maps `(B, *places)` as values `(B, *S)` whose sum over the channels is the map."""
    if inputs.ndim > 2:
        maps = (maps / inputs.shape[1]).unsqueeze(1)
    return maps.to(inputs.dtype).expand_as(inputs).clone()


def grid_cell_index(places: torch.Size, cells: int | None) -> Tensor:
    """Return the number of each place's cell `(*places)`, of a grid of `cells` by side.

    Cells differ by one place in size where the side is no multiple; a side shorter than `cells` has
    one cell per place.
    """
    number = torch.zeros(places, dtype=torch.long)
    for dim, side in enumerate(places):
        count = side if cells is None else min(cells, side)
        along = torch.arange(side) * count // side
        number = number * count + along.view(-1, *(1,) * (len(places) - dim - 1))
    return number


def sum_by_cell(values: Tensor, cell: Tensor) -> Tensor:
    """Return the sum of values `(B, *places)` over each cell `(B, cells)`."""
    sums = values.new_zeros(len(values), int(cell.max()) + 1)
    return sums.index_add_(1, cell.flatten(), values.flatten(1))

"""Places of an input: pixels, samples of a signal, features; all channels of one are one place."""

from __future__ import annotations

import torch
from torch import Tensor


def places_of(shape: torch.Size) -> torch.Size:
    """Return the shape of the places of an input `*S`: without the channels."""
    return shape[1:] if len(shape) > 1 else shape


def is_image(inputs: Tensor) -> bool:
    """Whether inputs are images `(B, C, H, W)`.

    >>> is_image(torch.zeros(2, 3, 8, 8)), is_image(torch.zeros(2, 5))
    (True, False)
    """
    return inputs.ndim == 4


def spread(maps: Tensor, inputs: Tensor) -> Tensor:
    """Return maps `(B, *places)` as values `(B, *S)` whose sum over the channels is the map."""
    if inputs.ndim > 2:
        maps = (maps / inputs.shape[1]).unsqueeze(1)
    return maps.to(inputs.dtype).expand_as(inputs).clone()

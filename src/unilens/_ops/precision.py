"""Sums in float64, where the device has it."""

from __future__ import annotations

import torch
from torch import Tensor

_WITHOUT_FLOAT64 = {"mps"}


def to_float64(values: Tensor) -> Tensor:
    """Return the values in float64; in float32 on devices that know no other."""
    narrow = values.device.type in _WITHOUT_FLOAT64
    return values.to(torch.float32 if narrow else torch.float64)


def l1_norm(values: Tensor) -> Tensor:
    """Return the l1 norm of each item `(B,)`, summed in float64 where the device has it."""
    narrow = values.device.type in _WITHOUT_FLOAT64
    summed = torch.float32 if narrow else torch.float64
    return values.abs().flatten(1).sum(1, dtype=summed)


def l2_norm(values: Tensor, batch_dims: int = 1) -> Tensor:
    """Return the l2 norm over all dimensions after the first `batch_dims`, which are kept.

    In float64, so that how the sum is split over a batch or over threads does not show when the
    norm is rounded to float32.
    """
    return to_float64(values).flatten(batch_dims).norm(dim=-1)


def expand_like(factors: Tensor, like: Tensor) -> Tensor:
    """Return factors of the first dimensions in a shape and dtype that scale `like`."""
    return factors.to(like.dtype).view(*factors.shape, *(1 for _ in like.shape[factors.ndim :]))

"""Sums and norms in float64, on devices that support it, and torch's default dtype."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_WITHOUT_FLOAT64 = {"mps"}


@contextmanager
def float32_by_default() -> Iterator[None]:
    """Build networks in float32, whose drawn weights depend on the seed alone."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def to_float64(values: Tensor) -> Tensor:
    """Return the values in float64, or in float32 on devices without float64."""
    return values.to(_sum_dtype(values))


def l1_norm(values: Tensor) -> Tensor:
    """Return the l1 norm of each input `(B,)`, summed in float64 on devices that support it."""
    return values.abs().flatten(1).sum(1, dtype=_sum_dtype(values))


def l2_norm(values: Tensor, batch_dims: int = 1) -> Tensor:
    """Return the l2 norm over all dimensions after the first `batch_dims`, in float64.

    In float64 the split of the sum over a batch or over threads does not affect the norm after
    rounding to float32.
    """
    return to_float64(values).flatten(batch_dims).norm(dim=-1)


def expand_like(factors: Tensor, like: Tensor) -> Tensor:
    """Return factors `(B, ...)` in the dtype of `like`, with dimensions added to broadcast."""
    return factors.to(like.dtype).view(*factors.shape, *(1 for _ in like.shape[factors.ndim :]))


def _sum_dtype(values: Tensor) -> torch.dtype:
    return torch.float32 if values.device.type in _WITHOUT_FLOAT64 else torch.float64

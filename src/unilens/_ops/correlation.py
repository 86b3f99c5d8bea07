"""Batched correlations along one dimension, NaN where either argument is constant."""

from __future__ import annotations

import torch
from torch import Tensor

from .precision import to_float64


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Return the Pearson correlation along the last dimension; NaN where an argument is constant.

    Args:
        first: `(..., n)`.
        second: `(..., n)`, broadcast against `first`.

    Returns:
        `(...)` in float64, in [-1, 1].
    """
    a, b = torch.broadcast_tensors(to_float64(first), to_float64(second))
    constant = (a == a[..., :1]).all(-1) | (b == b[..., :1]).all(-1)
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    value = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
    return value.clamp(-1, 1).masked_fill(constant, torch.nan)


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """Return the Spearman rank correlation along the last dimension; tied values share a rank.

    >>> round(float(spearman(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 4.0, 9.0]))), 6)
    1.0
    """
    return pearson(ranks(first), ranks(second))


def ranks(values: Tensor) -> Tensor:
    """Return the ranks from 1 along the last dimension; tied values share their mean rank.

    >>> ranks(torch.tensor([3.0, 1.0, 3.0]))
    tensor([2.5000, 1.0000, 2.5000], dtype=torch.float64)
    """
    values = values.contiguous()
    ascending = values.sort(dim=-1).values
    below = torch.searchsorted(ascending, values, right=False)
    up_to = torch.searchsorted(ascending, values, right=True)
    return to_float64(below + up_to + 1) / 2

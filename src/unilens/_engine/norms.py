"""Norms with their deviation held constant, as functions that are linear in the input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _scaled(input: Tensor, dims: Sequence[int], eps: float, *, centred: bool = True) -> Tensor:
    """Return the input, less its mean where it is centred, over a constant deviation."""
    if centred:
        input = input - input.mean(tuple(dims), keepdim=True)
    with torch.no_grad():
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        scale = (wide.square().mean(tuple(dims), keepdim=True) + eps).rsqrt().to(input.dtype)
    return input * scale


def _last(shape: Sequence[int] | int) -> range:
    return range(-len(shape), 0) if isinstance(shape, Sequence) else range(-1, 0)


def _by_channel(values: Tensor, weight: Tensor | None) -> Tensor:
    return values if weight is None else values * weight.view(-1, *(1,) * (values.ndim - 2))


def _layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor:
    values = _scaled(input, _last(normalized_shape), eps)
    return values if weight is None else values * weight


def _rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    values = _scaled(input, _last(normalized_shape), eps, centred=False)
    return values if weight is None else values * weight


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    grouped = input.reshape(len(input), num_groups, -1)
    return _by_channel(_scaled(grouped, (-1,), eps).view_as(input), weight)


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not use_input_stats:
        return None
    return _by_channel(_scaled(input, range(2, input.ndim), eps), weight)


def instance_norm_of_torch(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Tensor | None:
    """Return the same as `NORMS["instance_norm"]`, by the arguments of `torch.instance_norm`."""
    return _instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


NORMS: dict[str, Callable[..., Any]] = {
    "layer_norm": _layer_norm,
    "rms_norm": _rms_norm,
    "group_norm": _group_norm,
    "instance_norm": _instance_norm,
}
"""The norms by the names of torch's functions, each with that function's arguments.

What they return lacks the bias; None where the function is linear as it is.
"""

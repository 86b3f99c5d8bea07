"""The blurred input as a baseline, and the gaussian blur itself."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from .._engine.evaluator import Evaluator
from .._engine.packing import map_inputs
from .._ops.precision import to_float64
from .._validation.settings import Positive
from ..errors import NotApplicableError, UnilensError
from ..registry import Card
from .base import Baseline, baselines

Boundary = Literal["replicate", "reflect", "zero"]
"""The values outside the image: its edge repeated, its mirror image (edge included), or 0."""
Along = Literal["all", "time", "space"]
"""Axes that are blurred: all but the channels, the first of them (time or depth), or the others."""

_TRUNCATE = 4.0
"""The radius of the kernel, in standard deviations."""
_WIDEST = 16
"""The largest sigma, in multiples of the input's longest side; a larger kernel changes nothing."""
_LARGEST_MATRIX = 1024
"""The largest side, in pixels, for which the blur is computed as a matrix product."""


@dataclass(frozen=True)
class Blur(Baseline):
    """Compare with the input after a gaussian blur, which lacks the fine detail.

    Args:
        sigma: standard deviation of the gaussian, in pixels (or samples of a signal).
        boundary: one of "replicate", "reflect" and "zero".
        along: "all" axes but the channels, of every kind of input. Of clips `(B, C, T, H, W)`,
            "time" keeps the frames' content and removes motion, "space" blurs each frame by
            itself; of volumes, the same axes. The only axis of a series is its "time".
    """

    reads_axes_from: ClassVar[int] = 3
    sigma: Positive = 15.0
    boundary: Boundary = "replicate"
    along: Along = "all"

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs do not have the axes to blur along."""
        map_inputs(model, lambda values: check_axes(values, self.along), inputs)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return map_inputs(
            model, lambda values: blurred(values, self.sigma, self.boundary, self.along), inputs
        )


def check_spatial(inputs: Tensor) -> Tensor:
    """Return the inputs; raise `NotApplicableError` unless they have spatial dimensions."""
    if inputs.ndim < 3:
        raise NotApplicableError(
            f"expected images (B, C, H, W), signals (B, C, L) or volumes (B, C, D, H, W) to blur, "
            f"got {tuple(inputs.shape)}; a table has no neighbourhoods, use baseline='image_mean'"
        )
    return inputs


def check_axes(inputs: Tensor, along: str) -> Tensor:
    """Return the inputs; raise `NotApplicableError` unless they have the axes to blur along."""
    check_spatial(inputs)
    fitting = {"all": (3, 4, 5), "time": (3, 5), "space": (5,)}
    if along in fitting and inputs.ndim not in fitting[along]:
        kinds = "series (B, C, T) or clips (B, C, T, H, W)" if along == "time" else "clips"
        raise NotApplicableError(
            f"expected {kinds} for along={along!r}, got {tuple(inputs.shape)}; leave along out"
        )
    return inputs


def _dims(inputs: Tensor, along: str) -> range:
    """Return the dimensions of inputs `(B, C, ...)` that are blurred; see `Blur`."""
    return range(2 + (along == "space"), 3 if along == "time" else inputs.ndim)


def gaussian_blur(
    inputs: Tensor,
    sigmas: Tensor,
    boundary: str = "replicate",
    along: str = "all",
    slope: bool = False,
) -> Tensor:
    """Blur along the spatial dimensions, one after the other, by several widths.

    The computation is in float64: in float32 the result would depend on the size of the batch.

    Args:
        inputs: `(B, C, L)` signals, `(B, C, H, W)` images or `(B, C, D, H, W)` volumes.
        sigmas: `(N,)`, standard deviations of the gaussian, in pixels; 0 leaves the input.
        boundary: see `Blur`.
        along: see `Blur`.
        slope: whether to return the derivative in sigma instead.

    Returns:
        `(N, B, C, ...)`.

    Raises:
        NotApplicableError: the inputs have no spatial dimensions.
    """
    return torch.stack(
        [blurred(inputs, sigma, boundary, along, slope) for sigma in sigmas.tolist()]
    )


def blurred(
    inputs: Tensor,
    sigma: float,
    boundary: str = "replicate",
    along: str = "all",
    slope: bool = False,
) -> Tensor:
    """Return inputs `(B, C, ...)` after one blur, or its slope in sigma; see `gaussian_blur`."""
    check_spatial(inputs)
    size = max(inputs.shape[2:])
    if sigma > _WIDEST * size:
        raise UnilensError(
            f"expected a blur of at most {_WIDEST * size} pixels for inputs of {size}, got "
            f"{sigma:g}; nothing is left to blur"
        )
    values = to_float64(inputs)
    slopes = torch.zeros_like(values)
    for dim in _dims(values, along):
        if slope:
            changed = _along(values, sigma, dim, boundary, slope=True)
            slopes = _along(slopes, sigma, dim, boundary) + changed
        values = _along(values, sigma, dim, boundary)
    return (slopes if slope else values).to(inputs.dtype)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _kernel(sigma: float) -> tuple[Tensor, Tensor]:
    """Return a gaussian kernel `(2 R + 1,)` that sums to one, and its derivative in sigma."""
    radius = int(_TRUNCATE * sigma + 0.5)
    squares = torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2
    if not radius:
        return torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    kernel = (-0.5 * squares / sigma**2).exp()
    kernel = kernel / kernel.sum()
    return kernel, kernel * (squares - (kernel * squares).sum()) / sigma**3


def _along(values: Tensor, sigma: float, dim: int, boundary: str, slope: bool = False) -> Tensor:
    """Convolve values `(B, C, ...)` with a kernel, or with its slope, along a dimension."""
    lines = values.movedim(dim, -1)
    size = lines.shape[-1]
    if size <= _LARGEST_MATRIX:
        matrix = _matrix(sigma, size, boundary, slope).to(values).mT
        # A copy of each input: the rounding of a product depends on its size and memory alignment.
        return torch.stack([line.clone() @ matrix for line in lines]).movedim(-1, dim)
    kernel = _kernel(sigma)[slope]
    radius = len(kernel) // 2
    flat = lines.reshape(-1, 1, size)
    if boundary == "reflect":
        flat = flat[..., _reflected(torch.arange(-radius, size + radius), size).to(values.device)]
    else:
        mode = "replicate" if boundary == "replicate" else "constant"
        flat = pad(flat, (radius, radius), mode=mode)
    blurred = conv1d(flat, kernel.to(values).view(1, 1, -1))
    return blurred.view(lines.shape).movedim(-1, dim)


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def _matrix(sigma: float, size: int, boundary: str, slope: bool) -> Tensor:
    """Return the matrix `(size, size)` of the convolution with a kernel along `size` pixels."""
    kernel = _kernel(sigma)[slope]
    radius = len(kernel) // 2
    taken = torch.arange(size).unsqueeze(1) + torch.arange(-radius, radius + 1)
    inside = (taken >= 0) & (taken < size)
    taken = _reflected(taken, size) if boundary == "reflect" else taken.clamp(0, size - 1)
    weights = kernel.expand(size, -1) * (inside if boundary == "zero" else 1)
    return kernel.new_zeros(size, size).scatter_add_(1, taken, weights)


def _reflected(indices: Tensor, size: int) -> Tensor:
    turned = indices.remainder(2 * size)
    return torch.minimum(turned, 2 * size - 1 - turned)


baselines.add(
    Card(
        "blur",
        "blur",
        "the input after a gaussian blur",
        "Fong & Vedaldi 2017, arXiv 1704.03296",
        traits=("images",),
    ),
    Blur,
)

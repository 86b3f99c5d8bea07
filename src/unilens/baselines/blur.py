"""The blurred input as a baseline, and the gaussian blur itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from ..errors import NotApplicableError
from ..gradients import Evaluator
from ..numerics import wide
from ..registry import Card
from .base import baselines, check_choice, check_number

BOUNDARIES = ("replicate", "reflect", "zero")
"""What lies outside of the image: its edge repeated, its mirror image (edge included), or 0."""

_TRUNCATE = 4.0
"""Where the kernel ends, in standard deviations."""
_LARGEST_MATRIX = 1024
"""Pixels along a dimension up to which a blur is a product with a matrix."""


@dataclass(frozen=True)
class Blur:
    """Compare with the input after a gaussian blur: what is missing is fine detail.

    Args:
        sigma: standard deviation of the gaussian, in pixels (or samples of a signal).
        boundary: one of "replicate", "reflect" and "zero".
    """

    sigma: float = 15.0
    boundary: str = "replicate"

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, above=0)
        check_choice("boundary", self.boundary, BOUNDARIES)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs have no dimension of space."""
        check_space(inputs)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return gaussian_blur(
            inputs, torch.tensor([self.sigma], dtype=torch.float64), self.boundary
        )[0]


def check_space(inputs: Tensor) -> None:
    """Raise `NotApplicableError` unless the inputs are images or signals."""
    if inputs.ndim < 3:
        raise NotApplicableError(
            f"expected images (B, C, H, W) or signals (B, C, L) to blur, got "
            f"{tuple(inputs.shape)}; a table has no neighbourhoods, use baseline='image_mean'"
        )


def gaussian_blur(
    inputs: Tensor, sigmas: Tensor, boundary: str = "replicate", slope: bool = False
) -> Tensor:
    """Blur along the dimensions of space, one after the other, by several widths.

    It is computed in float64: rounded products would depend on how many there are.

    Args:
        inputs: `(B, C, L)` signals or `(B, C, H, W)` images.
        sigmas: `(N,)`, standard deviations of the gaussian, in pixels; 0 leaves the input.
        boundary: one of `BOUNDARIES`.
        slope: return the derivative in sigma instead.

    Returns:
        `(N, B, C, ...)`.

    Raises:
        NotApplicableError: the inputs have no dimension of space.
    """
    check_space(inputs)
    blurred = wide(inputs).expand(len(sigmas), *inputs.shape)
    slopes = torch.zeros_like(blurred)
    for dim in range(3, blurred.ndim):
        size = blurred.shape[dim]
        kernels, changes = _kernels(sigmas.double().cpu(), size)
        if slope:
            slopes = _along(slopes, kernels, dim, boundary) + _along(
                blurred, changes, dim, boundary
            )
        blurred = _along(blurred, kernels, dim, boundary)
    return (slopes if slope else blurred).to(inputs.dtype)


def _kernels(sigmas: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return gaussian kernels `(N, 2 R + 1)` that sum to one, and their derivatives in sigma."""
    radii = (_TRUNCATE * sigmas + 0.5).floor()
    offsets = torch.arange(-int(radii.max()), int(radii.max()) + 1, dtype=sigmas.dtype)
    width = sigmas.unsqueeze(1)
    squares = offsets**2
    inside = offsets.abs() <= radii.unsqueeze(1)
    kernels = torch.where(
        width > 0, (-0.5 * squares / width.clamp_min(1e-12) ** 2).exp() * inside, offsets == 0
    ).double()
    kernels = kernels / kernels.sum(1, keepdim=True)
    spread = squares - (kernels * squares).sum(1, keepdim=True)
    changes = torch.where(width > 0, kernels * spread / width.clamp_min(1e-12) ** 3, 0.0)
    return kernels, changes


def _along(values: Tensor, kernels: Tensor, dim: int, boundary: str) -> Tensor:
    """Convolve values `(N, B, C, ...)` with a kernel `(N, 2 R + 1)` each along a dimension."""
    lines = values.movedim(dim, -1)
    if lines.shape[-1] <= _LARGEST_MATRIX:
        matrices = _matrices(kernels, lines.shape[-1], boundary).to(values)
        shape = (len(kernels), *(1 for _ in lines.shape[1:-2]), *matrices.shape[1:])
        return (lines @ matrices.view(shape).mT).movedim(-1, dim)
    radius = kernels.shape[1] // 2
    indices = _reflected(torch.arange(-radius, lines.shape[-1] + radius), lines.shape[-1])
    each = []
    for one, kernel in zip(lines, kernels.to(values), strict=True):
        flat = one.reshape(-1, 1, one.shape[-1])
        if boundary == "reflect":
            flat = flat[..., indices.to(values.device)]
        else:
            mode = "replicate" if boundary == "replicate" else "constant"
            flat = pad(flat, (radius, radius), mode=mode)
        each.append(conv1d(flat, kernel.view(1, 1, -1)).view(one.shape))
    return torch.stack(each).movedim(-1, dim)


def _matrices(kernels: Tensor, size: int, boundary: str) -> Tensor:
    """Return `(N, size, size)` matrices: the kernels' convolutions along `size` pixels."""
    radius = kernels.shape[1] // 2
    taken = torch.arange(size).unsqueeze(1) + torch.arange(-radius, radius + 1)
    inside = (taken >= 0) & (taken < size)
    taken = _reflected(taken, size) if boundary == "reflect" else taken.clamp(0, size - 1)
    weights = kernels.unsqueeze(1).expand(-1, size, -1)
    if boundary == "zero":
        weights = weights * inside
    matrices = kernels.new_zeros(len(kernels), size, size)
    return matrices.scatter_add_(2, taken.expand(len(kernels), -1, -1), weights.contiguous())


def _reflected(indices: Tensor, size: int) -> Tensor:
    turned = indices.remainder(2 * size)
    return torch.minimum(turned, 2 * size - 1 - turned)


baselines.add(
    Card(
        "blur", "blur", "the input after a gaussian blur", "Fong & Vedaldi 2017, arXiv 1704.03296"
    ),
    Blur,
)

"""The blurred input as a baseline, and the gaussian blur itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, pad

from ..errors import UnilensError
from ..gradients import Evaluator
from ..registry import Card
from .base import baselines, check_number


@dataclass(frozen=True)
class Blur:
    """Compare with the input after a gaussian blur: what is missing is fine detail.

    Args:
        sigma: standard deviation of the gaussian, in pixels (or samples of a signal).
    """

    sigma: float = 15.0

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma, above=0)

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Tensor:
        """Return the baseline `(B, *S)`; see `Baseline`."""
        return gaussian_blur(inputs, self.sigma)


def gaussian_blur(inputs: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Blur along the dimensions of space, one after the other, edges repeated outwards.

    Args:
        inputs: `(B, C, L)` signals or `(B, C, H, W)` images.
        sigma: standard deviation, in pixels.
        truncate: where the kernel ends, in standard deviations.

    Returns:
        The shape of `inputs`.

    Raises:
        UnilensError: the inputs have no dimension of space.
    """
    if inputs.ndim < 3:
        raise UnilensError(
            f"expected images (B, C, H, W) or signals (B, C, L) to blur, got "
            f"{tuple(inputs.shape)}; a table has no neighbourhoods, use baseline='image_mean'"
        )
    radius = math.ceil(truncate * sigma)
    offsets = torch.arange(-radius, radius + 1, dtype=inputs.dtype, device=inputs.device)
    kernel = (-0.5 * (offsets / sigma) ** 2).exp()
    kernel = kernel / kernel.sum()
    for dim in range(2, inputs.ndim):
        lines = inputs.movedim(dim, -1)
        flat = pad(lines.reshape(-1, 1, lines.shape[-1]), (radius, radius), mode="replicate")
        inputs = conv1d(flat, kernel.view(1, 1, -1)).view(lines.shape).movedim(-1, dim)
    return inputs.contiguous()


baselines.add(
    Card(
        "blur", "blur", "the input after a gaussian blur", "Fong & Vedaldi 2017, arXiv 1704.03296"
    ),
    Blur,
)

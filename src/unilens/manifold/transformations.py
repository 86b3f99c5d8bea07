"""Tangent directions that every image has: translation, rotation, scaling, brightness."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import to_float64
from ..errors import NotApplicableError
from .tangent import TangentSpace

_MARGIN = 64
"""Epsilons of the image below which a difference of its pixels is rounding."""


@dataclass(frozen=True)
class Transformations:
    """The tangent space of small transformations that keep an image's content; it needs no data.

    Two translations, rotation, scaling, two hyperbolic stretches and the thickness of lines, from
    central differences of the pixels; an offset and a gain per channel: 7 + 2 C directions. They
    span a small part of the true tangent space: a map outside of it need not be off the manifold.

    References:
        Simard, LeCun, Denker, Victorri 1998, "Transformation invariance in pattern recognition:
        tangent distance and tangent propagation", doi 10.1007/3-540-49430-8_13.
    """

    def check(self, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the inputs are images of 2 pixels a side or more."""
        if inputs.ndim != 4 or min(inputs.shape[2:]) < 2:
            raise NotApplicableError(
                f"expected pictures (B, C, H, W), which can be moved and turned, got "
                f"{tuple(inputs.shape)}; name another manifold (unilens manifold fit)"
            )

    def __call__(self, inputs: Tensor) -> TangentSpace:
        """Return the tangent spaces; see `Manifold`."""
        self.check(inputs)
        epsilon = torch.finfo(inputs.dtype).eps
        directions = [_directions(to_float64(image), epsilon) for image in inputs]
        return TangentSpace.spanned_by(torch.stack(directions), _MARGIN * epsilon)


def _directions(image: Tensor, epsilon: float) -> Tensor:
    """Return the directions `(C * H * W, 7 + 2 C)` at an image `(C, H, W)` of this precision."""
    down, right = torch.gradient(image, dim=(1, 2))
    rows, columns = (
        torch.linspace(-1, 1, size, dtype=image.dtype, device=image.device)
        for size in image.shape[1:]
    )
    y, x = rows[:, None], columns[None, :]
    moved = [
        right,
        down,
        x * down - y * right,
        x * right + y * down,
        x * right - y * down,
        x * down + y * right,
        right.square() + down.square(),
    ]
    channels = torch.eye(len(image), dtype=image.dtype, device=image.device)[:, :, None, None]
    lit = [*channels.expand(-1, *image.shape), *(channels * image)]
    least = _MARGIN * epsilon * float(image.norm())
    return torch.stack([_unit(direction.flatten(), least) for direction in (*moved, *lit)], dim=1)


def _unit(direction: Tensor, least: float) -> Tensor:
    """Return a direction at length 1, so that the rank does not depend on units; rounding is 0."""
    length = direction.norm()
    return direction / length if length > least else torch.zeros_like(direction)

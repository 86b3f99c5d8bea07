"""The luminance of pictures and its edges: what a picture shows without any model."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import pad

from .errors import NotApplicableError
from .numerics import wide

_LUMINANCE = (0.2125, 0.7154, 0.0721)
"""What red, green and blue count (ITU-R BT.709)."""


def check_pictures(inputs: Tensor, remedy: str) -> None:
    """Raise `NotApplicableError` with the remedy unless inputs are grey or colour pictures."""
    if inputs.ndim != 4 or inputs.shape[1] not in (1, 3):
        raise NotApplicableError(
            f"expected pictures (B, 3, H, W) or (B, 1, H, W), got {tuple(inputs.shape)}; {remedy}"
        )


def grey(pictures: Tensor) -> Tensor:
    """Return the luminance `(B, H, W)` of pictures `(B, 3, H, W)` or `(B, 1, H, W)`, in float64."""
    if pictures.shape[1] == 1:
        return wide(pictures)[:, 0]
    red, green, blue = wide(pictures).unbind(1)
    return _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue


def edges(pictures: Tensor) -> Tensor:
    """Return the Sobel magnitude of the luminance `(B, H, W)`, the border continued outwards."""
    around = pad(grey(pictures).unsqueeze(1), (1, 1, 1, 1), mode="replicate")[:, 0]
    down = around[:, 2:] - around[:, :-2]
    across = around[:, :, 2:] - around[:, :, :-2]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    return ((down.square() + across.square()) / 32).sqrt()

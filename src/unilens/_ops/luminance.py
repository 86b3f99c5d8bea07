"""The luminance of pictures and its edges, and checks for pictures."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import pad

from ..errors import NotApplicableError
from .precision import to_float64

_LUMINANCE = (0.2125, 0.7154, 0.0721)
"""The weights of red, green and blue (ITU-R BT.709)."""


def check_pictures(inputs: Tensor, remedy: str, channels: Sequence[int] = (3, 1)) -> None:
    """Raise `NotApplicableError` unless inputs are pictures with these channels."""
    if inputs.ndim != 4 or inputs.shape[1] not in channels:
        shapes = " or ".join(f"(B, {count}, H, W)" for count in channels)
        raise NotApplicableError(f"expected pictures {shapes}, got {tuple(inputs.shape)}; {remedy}")


def check_unit_pictures(inputs: Tensor, remedy: str, channels: Sequence[int] = (3, 1)) -> None:
    """Raise `NotApplicableError` unless inputs are pictures with values in [0, 1].

    Args:
        inputs: `(B, *S)`.
        remedy: the end of the message for inputs that are not pictures.
        channels: the numbers of channels that a picture may have.
    """
    check_pictures(inputs, remedy, channels)
    low, high = float(inputs.min()), float(inputs.max())
    if low < 0 or high > 1:
        raise NotApplicableError(
            f"expected pictures in [0, 1], got values from {low:.3g} to {high:.3g}; put the "
            "normalisation inside the model (unilens.PixelClassifier does)"
        )


def grey(pictures: Tensor) -> Tensor:
    """Return the luminance `(B, H, W)` of pictures `(B, 3, H, W)` or `(B, 1, H, W)`, in float64."""
    if pictures.shape[1] == 1:
        return to_float64(pictures)[:, 0]
    red, green, blue = to_float64(pictures).unbind(1)
    return _LUMINANCE[0] * red + _LUMINANCE[1] * green + _LUMINANCE[2] * blue


def edges(pictures: Tensor) -> Tensor:
    """Return the Sobel magnitude of the luminance `(B, H, W)`, with the border replicated."""
    around = pad(grey(pictures).unsqueeze(1), (1, 1, 1, 1), mode="replicate")[:, 0]
    down = around[:, 2:] - around[:, :-2]
    across = around[:, :, 2:] - around[:, :, :-2]
    down = down[:, :, :-2] + 2 * down[:, :, 1:-1] + down[:, :, 2:]
    across = across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]
    return ((down.square() + across.square()) / 32).sqrt()

"""An image of which it is known what its network reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
from PIL import Image

from ..classifier import PixelClassifier

Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Example:
    """An image, its class, and the truth about it.

    Attributes:
        image: RGB.
        label: of its class.
        mask: white where the reason for the class is, black elsewhere; None where it is parts.
        without: the image without each of its parts, rendered anew; empty where it has none.
    """

    image: Image.Image
    label: str
    mask: Image.Image | None = None
    without: tuple[Image.Image, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownTruth:
    """A network whose reasons are known, and images to ask it about.

    Attributes:
        summary: one line.
        network: builds or trains it; deterministic, in seconds.
        examples: makes the images; deterministic.
    """

    summary: str
    network: Callable[[], PixelClassifier]
    examples: Callable[[], tuple[Example, ...]]


def box_mask(side: int, corner: tuple[int, int], size: int) -> Image.Image:
    """Return a mask of `side` x `side` pixels, white in a box of `size` x `size`.

    Args:
        side: of the mask.
        corner: top and left of the box.
        size: of the box.
    """
    top, left = corner
    values = numpy.zeros((side, side), numpy.uint8)
    values[top : top + size, left : left + size] = 255
    return Image.fromarray(values).convert("RGB")


def to_image(values: Array) -> Image.Image:
    """Return values in [0, 1], `(H, W)` or `(H, W, 3)`, as an RGB image."""
    return Image.fromarray((values.clip(0, 1) * 255).round().astype(numpy.uint8)).convert("RGB")

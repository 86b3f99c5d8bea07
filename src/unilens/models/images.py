"""Reading photographs, and refusing what is not one in a sentence."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UnilensError

MAX_PIXELS = 89_000_000
"""Images with more pixels are refused before they are decoded: they are mistakes or bombs."""
MIN_SIDE = 8
"""Pixels; a shorter side holds nothing to attribute to."""
MAX_ASPECT = 50
"""Long side over short side; resizing the short side of a thinner image takes gigabytes."""


def read_image(source: str | os.PathLike[str] | BinaryIO, name: str | None = None) -> Image.Image:
    """Return a photograph as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid over white, 16-bit greys are scaled, and
    palettes and CMYK are converted; of an animation the first frame is taken.

    Args:
        source: a path, or an open binary file that can be sought in.
        name: what messages call it; None for the path.

    Raises:
        UnilensError: the file is missing, empty, truncated, no image, too small or too large.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _read(lambda: nullcontext(source), name or "the image")
    path = Path(source)
    name = name or str(path)
    if not path.exists():
        raise UnilensError(f"no such image: {name}")
    if not path.is_file():
        raise UnilensError(f"expected an image file, got a folder: {name}")
    return _read(lambda: path.open("rb"), name)


def upright(image: Image.Image, name: str) -> Image.Image:
    """Return an image as `read_image` returns it, refusing the same ones."""
    _check_size(image, name)
    image.load()
    return to_rgb(ImageOps.exif_transpose(image))


def _read(opened: Callable[[], AbstractContextManager[BinaryIO]], name: str) -> Image.Image:
    try:
        with warnings.catch_warnings(), opened() as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if not file.read(1):
                raise UnilensError(f"expected an image, got an empty file: {name}")
            file.seek(0)
            with Image.open(file) as image:
                return upright(image, name)
    except UnidentifiedImageError:
        raise UnilensError(
            f"expected an image (JPEG, PNG, WebP, ...), but {name} is none that can be read"
        ) from None
    except Image.DecompressionBombError:
        raise UnilensError(_too_large(name, "far more ")) from None
    except UnilensError:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise UnilensError(f"could not read {name}: {error}; is the file whole?") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode as 8-bit RGB, transparency laid over white."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I;16N", "I"):
        values = numpy.asarray(image).astype(numpy.float64)
        image = Image.fromarray((values.clip(0, 65535) / 257).round().astype(numpy.uint8))
    elif image.mode == "F":
        values = numpy.nan_to_num(numpy.asarray(image))
        scale = 255.0 if values.max(initial=0) <= 1 else 1.0
        image = Image.fromarray((values * scale).clip(0, 255).round().astype(numpy.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnilensError(_too_large(name, f"{width * height / 1e6:.0f} mega"))
    if min(width, height) < MIN_SIDE:
        raise UnilensError(
            f"expected an image of at least {MIN_SIDE} pixels a side, got {width} x {height} in "
            f"{name}"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnilensError(
            f"expected an image at most {MAX_ASPECT} times as long as it is wide, got {width} x "
            f"{height} in {name}; cut it first"
        )


def _too_large(name: str, came: str) -> str:
    return (
        f"expected an image of at most {MAX_PIXELS // 10**6} megapixels, but {name} has {came}"
        "pixels; scale it down first"
    )

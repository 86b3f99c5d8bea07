"""Reading photographs, and refusing what is not one in a sentence."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import UnilensError

MAX_PIXELS = 89_000_000
"""Images with more pixels are refused before they are decoded: they are mistakes or bombs."""
MIN_SIDE = 8
"""Pixels; a shorter side holds nothing to attribute to."""
MAX_ASPECT = 50
"""Long side over short side; resizing the short side of a thinner image takes gigabytes."""


def read_image(path: str | os.PathLike[str]) -> Image.Image:
    """Return a photograph as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid over white, 16-bit greys are scaled, and
    palettes and CMYK are converted; of an animation the first frame is taken.

    Raises:
        UnilensError: the file is missing, empty, truncated, no image, too small or too large.
    """
    path = Path(path)
    if not path.exists():
        raise UnilensError(f"no such image: {path}")
    if not path.is_file():
        raise UnilensError(f"expected an image file, got a folder: {path}")
    try:
        if path.stat().st_size == 0:
            raise UnilensError(f"expected an image, got an empty file: {path}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                _check_size(image, path)
                image.load()
                return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise UnilensError(
            f"expected an image (JPEG, PNG, WebP, ...), but {path} is none that can be read"
        ) from None
    except Image.DecompressionBombError:
        raise UnilensError(_too_large(path, "far more ")) from None
    except UnilensError:
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise UnilensError(f"could not read {path}: {error}; is the file whole?") from error


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


def _check_size(image: Image.Image, path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnilensError(_too_large(path, f"{width * height / 1e6:.0f} mega"))
    if min(width, height) < MIN_SIDE:
        raise UnilensError(
            f"expected an image of at least {MIN_SIDE} pixels a side, got {width} x {height} in "
            f"{path}"
        )
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise UnilensError(
            f"expected an image at most {MAX_ASPECT} times as long as it is wide, got {width} x "
            f"{height} in {path}; cut it first"
        )


def _too_large(path: Path, came: str) -> str:
    return (
        f"expected an image of at most {MAX_PIXELS // 10**6} megapixels, but {path} has {came}"
        "pixels; scale it down first"
    )

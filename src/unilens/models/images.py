"""Reading photographs, and clear errors for files that are none."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import UnilensError, UnilensWarning, require
from .bit_depth import Array, to_uint8, warn_if_black_or_white

MAX_PIXELS = 89_000_000
"""Images with more pixels are refused before they are decoded, as decompression bombs."""
MIN_SIDE = 8
"""Pixels of the shorter side."""
MAX_ASPECT = 50
"""Long side over short side; resizing the short side of a thinner image takes gigabytes."""

Range: TypeAlias = tuple[float, float] | None
ImageSource: TypeAlias = (
    str | os.PathLike[str] | BinaryIO | Image.Image | numpy.ndarray[Any, Any] | Tensor
)


def read_image(
    source: ImageSource, name: str | None = None, *, value_range: Range = None
) -> Image.Image:
    """Return a picture as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid over white, and palettes, CMYK and greys are
    converted; of an animation or a stack the first frame is taken. Integers of more than 8 bits
    are read over the fewest of 8, 10, 12, 14 or 16 bits that hold the largest of them; below 16
    bits a `UnilensWarning` says so. Floats are read over [0, 1]. Pillow reads colours of 16 bits
    by their upper 8. A nearly black or nearly white result raises a warning, unless the picture is
    8-bit RGB in memory.

    Args:
        source: a path, an open binary file that can be sought in, a PIL image, or an array or
            tensor `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)`; a tensor may also have its
            channels first. Four channels are RGB and opacity.
        name: in messages; None for the path.
        value_range: the values that become black and white, where the rule above does not fit;
            values outside are clipped.

    Raises:
        UnilensError: the file is missing, empty, truncated, no image, too small or too large, or
            its values need a `value_range`: negative, floats beyond [0, 1], more than 16 bits.
    """
    return to_channels(open_image(source, name, value_range=value_range), 3)


def open_image(
    source: ImageSource, name: str | None = None, *, value_range: Range = None
) -> Image.Image:
    """Return a picture as `read_image` does, but as RGBA where it has transparency."""
    image = decode_image(source, name, value_range=value_range)
    if type(source) is not Image.Image or source.mode not in ("RGB", "RGBA"):
        warn_if_black_or_white(to_channels(image, 1).histogram(), _name_of(source, name))
    return image


def decode_image(
    source: ImageSource, name: str | None = None, *, value_range: Range = None
) -> Image.Image:
    """Return a picture as `open_image` does, without the warning for nearly black or white ones."""
    shown = _name_of(source, name)
    if isinstance(source, (numpy.ndarray, Tensor)):
        values = _as_array(source, shown)
        _check_size(values.shape[1], values.shape[0], shown)
        image = Image.fromarray(to_uint8(values, shown, value_range))
        return image if image.mode == "RGBA" else image.convert("RGB")
    if isinstance(source, Image.Image):
        return _read(nullcontext(source), shown, value_range)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        require(path.exists(), f"no such image: {shown}")
        what = "a folder" if path.is_dir() else "something else"
        require(path.is_file(), f"expected an image file, got {what}: {shown}")
        return _read(_opened(lambda: path.open("rb"), shown), shown, value_range)
    require(
        hasattr(source, "read") and hasattr(source, "seek"),
        "expected a path, an open binary file, a PIL image, or an array or tensor of pixels, got "
        f"{type(source).__name__}",
    )
    return _read(_opened(lambda: nullcontext(source), shown), shown, value_range)


def to_channels(image: Image.Image, count: int) -> Image.Image:
    """Return an RGB or RGBA image with 1 (grey), 3 or 4 channels, transparency over white.

    Raises:
        UnilensError: four channels of an image without transparency, or another count.
    """
    if count == 4:
        require(
            image.mode == "RGBA",
            "the model takes 4 channels, read as red, green, blue and opacity: expected an image "
            "with transparency or an array (H, W, 4), got one without; for other channels, pass "
            "tensors (B, 4, H, W) to unilens.explain",
        )
        return image
    require(
        count in (1, 3),
        f"the model takes {count} channels, and a photograph has 1, 3 or 4: pass tensors "
        f"(B, {count}, H, W) to unilens.explain",
    )
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if count == 1 else "RGB")


def _name_of(source: ImageSource, name: str | None) -> str:
    return name or (str(source) if isinstance(source, (str, os.PathLike)) else "the image")


@contextmanager
def _opened(
    file: Callable[[], AbstractContextManager[BinaryIO]], name: str
) -> Iterator[Image.Image]:
    with file() as content:
        if not content.read(1):
            raise UnilensError(f"expected an image, got an empty file: {name}")
        content.seek(0)
        with Image.open(content) as image:
            yield image


def _read(
    opened: AbstractContextManager[Image.Image], name: str, value_range: Range
) -> Image.Image:
    try:
        with opened as image:
            return _decoded(image, name, value_range)
    except UnidentifiedImageError:
        raise UnilensError(
            f"expected an image (JPEG, PNG, WebP, ...), but {name} is none that can be read"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\((\d+) pixels\)", str(error))
        warned = isinstance(error, Image.DecompressionBombWarning)
        actual = f"{int(count[1]) / 1e6:.0f} mega" if count and warned else "far more "
        raise UnilensError(_too_large(name, actual)) from None
    except (UnilensError, UnilensWarning):
        raise
    except Exception as error:  # decoders raise whatever they like on broken files
        raise UnilensError(f"could not read {name}: {error}; is the file whole?") from error


def _decoded(image: Image.Image, name: str, value_range: Range) -> Image.Image:
    """Return an image as upright 8-bit RGB, or RGBA where it has transparency."""
    _check_size(*image.size, name)
    if value_range is not None and image.mode in ("RGB", "RGBA", "LA"):
        require(
            not any(";16" in str(tile) for tile in getattr(image, "tile", ())),
            f"{name} has colours of 16 bits, of which Pillow reads the upper 8: a value_range "
            "(--range) has no meaning for them; read the file as an array and pass that",
        )
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        values = to_uint8(numpy.asarray(image), name, value_range)
        return Image.fromarray(values).convert("RGB")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if value_range is None:
        return image
    pixels = numpy.array(image)
    pixels[..., :3] = to_uint8(pixels[..., :3], name, value_range)
    return Image.fromarray(pixels)


def _as_array(source: numpy.ndarray[Any, Any] | Tensor, name: str) -> Array:
    """Return pixels as `(H, W)`, `(H, W, 3)` or `(H, W, 4)`."""
    values = _from_tensor(source, name) if isinstance(source, Tensor) else numpy.asarray(source)
    require(
        values.ndim == 2 or (values.ndim == 3 and values.shape[2] in _CHANNELS),
        f"expected {name} as (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), got {values.shape}; "
        "several images are passed one by one",
    )
    return values[..., 0] if values.shape[2:] == (1,) else values


_CHANNELS = (1, 3, 4)


def _from_tensor(tensor: Tensor, name: str) -> Array:
    try:
        plain = tensor.detach().cpu()
        values: Array = (plain.float() if plain.is_floating_point() else plain).numpy(force=True)
    except (TypeError, RuntimeError) as error:
        raise UnilensError(
            f"expected {name} as a dense tensor of numbers, got {tensor.layout} on {tensor.device}"
        ) from error
    first = values.ndim == 3 and values.shape[0] in _CHANNELS and values.shape[2] not in _CHANNELS
    return numpy.moveaxis(values, 0, 2) if first else values


def _check_size(width: int, height: int, name: str) -> None:
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


def _too_large(name: str, actual: str) -> str:
    return (
        f"expected an image of at most {MAX_PIXELS // 10**6} megapixels, but {name} has {actual}"
        "pixels; scale it down first"
    )

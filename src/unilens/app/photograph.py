"""A visitor's photograph, read within limits."""

from __future__ import annotations

import functools
import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import UnilensError, require
from ..models import samples
from ..models.images import decode_image, to_channels

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 40_000_000
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tiff",
}
FORMATS = tuple(SUFFIXES)
"""Formats that are decoded: those of other formats are little used and little tested."""


@dataclass(frozen=True)
class Photograph:
    """A photograph, decoded.

    Attributes:
        name: name of the file, without folders.
        data: the file's bytes.
        image: the pixels, upright, RGB.
        sample: its name among the samples, if it is one.
    """

    name: str
    data: bytes
    image: Image.Image
    sample: str | None = None

    @property
    def digest(self) -> str:
        """The SHA-256 of the file."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def stem(self) -> str:
        """Name of the files about it, without suffix."""
        return re.sub(r"[^\w-]+", "-", Path(self.name).stem).strip("-")[:60] or "photograph"

    @property
    def suffix(self) -> str:
        """Suffix of its file by its format, whatever its name says."""
        with _opened(self.data) as image:
            return SUFFIXES[str(image.format)]


def read_photograph(data: bytes, name: str) -> Photograph:
    """Return a photograph from its bytes.

    Raises:
        UnilensError: too many bytes or pixels, or not a complete photograph.
    """
    name = re.split(r"[\\/]", name)[-1][:200] or "photograph"
    require(
        len(data) <= MAX_BYTES,
        f"expected a photograph of at most {MAX_BYTES // 2**20} MB, got {len(data) / 2**20:.0f} "
        "MB; scale it down first",
    )
    require(bool(data), "expected a photograph, got an empty file")
    try:
        with _opened(data) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = MAX_PIXELS  # or more: refused below
    except Exception:  # decoders raise errors of any type
        raise UnilensError(
            f"expected a photograph (JPEG, PNG, WebP, BMP, GIF or TIFF), but {name} is none that "
            "can be read"
        ) from None
    require(
        width * height <= MAX_PIXELS,
        f"expected a photograph of at most {MAX_PIXELS // 10**6} megapixels; scale it down first",
    )
    sample = _known_samples().get(data)
    image = to_channels(decode_image(io.BytesIO(data), name), 3)  # the page shows its brightness
    return Photograph(name, data, image, sample)


def _opened(data: bytes) -> Image.Image:
    """Open a file without decoding it."""
    return Image.open(io.BytesIO(data), formats=FORMATS)


def sample_photograph(name: str) -> Photograph:
    """Return a sample by its name."""
    image = samples[name]()
    return Photograph(f"{name}.png", _png(name), image, name)


@functools.cache
def _png(name: str) -> bytes:
    """Return a sample as the bytes of a PNG file."""
    buffer = io.BytesIO()
    samples[name]().save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@functools.cache
def _known_samples() -> dict[bytes, str]:
    return {_png(name): name for name in samples}

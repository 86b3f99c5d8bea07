"""A visitor's photograph: read within limits, and known by its bytes."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import UnilensError, require
from ..models import samples
from ..models.images import decode_image, to_channels

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 40_000_000
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "TIFF": ".tiff",
}
KINDS = tuple(SUFFIXES)
"""What is decoded; other formats have decoders that few people use and nobody watches."""


@dataclass(frozen=True)
class Photograph:
    """A photograph, decoded.

    Attributes:
        name: of the file, without folders.
        data: the file's bytes.
        image: upright, RGB.
        sample: its name among the samples, where it is one.
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
        """What files about it are called."""
        return re.sub(r"[^\w-]+", "-", Path(self.name).stem).strip("-")[:60] or "photograph"

    @property
    def suffix(self) -> str:
        """How a file of it ends: by what it is, whatever its name says that it is."""
        with _opened(self.data) as image:
            return SUFFIXES[str(image.format)]


def read_photograph(data: bytes, name: str) -> Photograph:
    """Return a photograph from its bytes.

    Raises:
        UnilensError: the bytes are too many, or no whole photograph of a fitting size.
    """
    name = re.split(r"[\\/]", name)[-1][:200] or "photograph"
    require(
        len(data) <= MOST_BYTES,
        f"expected a photograph of at most {MOST_BYTES // 2**20} MB, got {len(data) / 2**20:.0f} "
        "MB; scale it down first",
    )
    require(bool(data), "expected a photograph, got an empty file")
    try:
        with _opened(data) as image:
            width, height = image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width = height = MOST_PIXELS  # far more
    except Exception:  # decoders raise whatever they like
        raise UnilensError(
            f"expected a photograph (JPEG, PNG, WebP, BMP, GIF or TIFF), but {name} is none that "
            "can be read"
        ) from None
    require(
        width * height <= MOST_PIXELS,
        f"expected a photograph of at most {MOST_PIXELS // 10**6} megapixels; scale it down first",
    )
    sample = _known_samples().get(hashlib.sha256(data).hexdigest())
    image = to_channels(decode_image(io.BytesIO(data), name), 3)  # the page shows how dark it is
    return Photograph(name, data, image, sample)


def _opened(data: bytes) -> Image.Image:
    """Open a file without decoding it."""
    return Image.open(io.BytesIO(data), formats=KINDS)


def sample_photograph(name: str) -> Photograph:
    """Return a sample by its name."""
    image = samples[name]()
    return Photograph(f"{name}.png", _png(name), image, name)


_PNGS: dict[str, bytes] = {}


def _png(name: str) -> bytes:
    """Return a sample as the bytes of a PNG file, always the same."""
    if name not in _PNGS:
        buffer = io.BytesIO()
        samples[name]().save(buffer, "PNG", compress_level=1)
        _PNGS[name] = buffer.getvalue()
    return _PNGS[name]


def _known_samples() -> dict[str, str]:
    return {hashlib.sha256(_png(name)).hexdigest(): name for name in samples}

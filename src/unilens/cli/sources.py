"""The photographs that a command names: files, folders, patterns and samples."""

from __future__ import annotations

import glob
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .._catalogue import listing
from ..errors import UnilensError, require
from ..output.text import printable
from ..specs import images_in

if TYPE_CHECKING:
    from PIL import Image

Range = tuple[float, float] | None


@dataclass(frozen=True)
class Source:
    """A photograph that is read when its turn comes.

    Attributes:
        name: what its files are called.
        label: its path, or its name among the samples.
        path: None for a sample.
    """

    name: str
    label: str
    path: Path | None = None

    def load(self, value_range: Range = None) -> Image.Image:
        """Read the photograph, as RGB or, with transparency, as RGBA."""
        from ..models import samples
        from ..models.images import open_image

        source = samples[self.label]() if self.path is None else self.path
        return open_image(source, value_range=value_range)


def read_sources(images: list[str] | None, names: list[str] | None) -> list[Source]:
    """Return the named photographs, files first; raise if there are none, or one is missing."""
    paths = [path for text in images or [] for path in read_paths(text)]
    sources = [Source(path.stem, printable(str(path)), path) for path in paths]
    for name in (name.strip() for text in names or [] for name in text.split(",")):
        sample = listing("samples")[name].card.name
        sources.append(Source(sample, sample))
    require(bool(sources), "expected an image or --sample NAME; try: unilens list samples")
    return sources


def read_paths(text: str) -> Iterator[Path]:
    """Yield the files that a text names: a file, a folder, a pattern, or several by commas."""
    path = Path(text)
    if text and path.is_dir():
        images = images_in(path)
        require(bool(images), f"expected images, got none by their endings in the folder {path}")
        yield from images
    elif text and path.exists():
        yield path
    elif matches := sorted(glob.glob(text, recursive=True)):  # noqa: PTH207  # may be absolute
        for match in matches:
            yield from read_paths(match)
    elif "," in text:
        for part in text.split(","):
            yield from read_paths(part.strip())
    else:
        raise UnilensError(f"no such image: {printable(text)}; expected a file, folder or pattern")


def read_range(text: str | None) -> Range:
    """Return the range `LOW,HIGH` of pixel values."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low = high = math.nan
    require(
        low < high and math.isfinite(high - low),
        f"expected --range LOW,HIGH, two numbers, the smaller first, got {text!r}",
    )
    return low, high

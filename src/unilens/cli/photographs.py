"""What commands that look at photographs share: sources, options read, and progress shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..errors import UnilensError, require
from ..models import PixelClassifier, samples
from ..models.bit_depth import check_range
from ..models.images import open_image
from ..output.viz import printable
from .app import err, out


@dataclass(frozen=True)
class Source:
    """A photograph to be read when its turn comes."""

    name: str
    shown: str
    path: Path | None = None

    def load(self, value_range: tuple[float, float] | None = None) -> Image.Image:
        """Read the photograph, as RGB or, with transparency, as RGBA."""
        source = samples[self.shown]() if self.path is None else self.path
        return open_image(source, value_range=value_range)


def read_sources(images: list[Path], names: list[str]) -> list[Source]:
    """Return the photographs that were named, files first; raise where there are none."""
    for name in names:
        samples[name]
    sources = [Source(path.stem, printable(str(path)), path) for path in images]
    sources += [Source(name, name) for name in names]
    require(bool(sources), "expected an image or --sample NAME; try: unilens list samples")
    return sources


def read_range(text: str | None) -> tuple[float, float] | None:
    """Return the range `LOW,HIGH` of pixel values."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
        return check_range((low, high))
    except ValueError:
        raise UnilensError(
            f"expected --range LOW,HIGH, two numbers, the smaller first, got {text!r}"
        ) from None


def show_preprocessing(classifier: PixelClassifier) -> None:
    """Print what a model of the user's own is shown."""
    if classifier.name.startswith("py:"):
        line = f"{classifier.name} is shown {classifier.preprocessing}"
        remedy = "to change that, return a unilens.models.PixelClassifier"
        out.print(escape(printable(f"{line} ({remedy})")), soft_wrap=True, highlight=False)


def class_index(classifier: PixelClassifier, target: str) -> int:
    """Return the index of a class given as a label or a number."""
    index = classifier.class_index(target)
    count = len(classifier.labels)
    require(
        not count or index < count,
        f"expected --target between 0 and {count - 1}, or a label, got {target}",
    )
    return index


def read_device(name: str) -> torch.device:
    """Return the device of that name."""
    try:
        return torch.device(name)
    except RuntimeError:
        raise UnilensError(f"expected --device cpu, cuda, cuda:0 or mps, got {name!r}") from None


def waiting(text: str) -> AbstractContextManager[object]:
    """Show that something takes a while, where there is a terminal."""
    return err.status(escape(text)) if err.is_terminal else nullcontext()


@contextmanager
def progress_of(total: int) -> Iterator[Progress]:
    """Show how far the work is, where there is a terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=err, transient=True)
    progress.add_task("", total=total)
    with progress if err.is_terminal else nullcontext():
        yield progress

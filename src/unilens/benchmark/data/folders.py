"""Images in a folder, local or at any URL that fsspec supports."""

from __future__ import annotations

import os
import posixpath
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from ...errors import UnilensError, UnilensWarning, first_line, require
from ...models import read_image
from ...specs import STUBS
from .items import Item, Label, hash_order
from .labels import read_labels

MAX_BYTES = 2**30
"""Of a file that is read whole."""
TABLE = "labels.csv"
"""Read if it is in the folder and no other table is given."""


@dataclass(frozen=True, slots=True)
class _Folder:
    """Images in a folder.

    Attributes:
        url: of the folder, or of a single image.
        alone: whether the URL is of an image.
    """

    url: str
    alone: bool = False

    def load(self, name: str) -> Image.Image:
        """Read the image at that path in the folder as upright RGB."""
        source = self.url if self.alone else f"{self.url.rstrip('/')}/{name}"
        with _reasons(source):
            files, root = url_to_fs(self.url)
            content = _content(files, root if self.alone else _joined(root, name))
        return read_image(BytesIO(content), source)


def list_folder(url: str, *, labels: str | None = None, limit: int | None = None) -> list[Item]:
    """Return the images of a folder and the folders in it; see `open_source`."""
    _check_protocols(url)
    if labels is not None:
        _check_protocols(labels)
    with _reasons(url):
        files, root = url_to_fs(url)
        if isinstance(files, LocalFileSystem):
            url = root
        names = sorted(_names(files, root))
    if not names:
        raise UnilensError(f"no such folder or image, or an empty one: {url}")
    origin = _Folder(url, alone=names == [""])
    if origin.alone:
        names = [posixpath.basename(root)]
    images = [name for name in names if _is_image(name)]
    if not images:
        raise UnilensError(
            "expected images, got none by their endings (.jpg, .png, .webp, ...) in "
            f"{url}, but {', '.join(names[:3])}"
        )
    table = _table(url, names, images, labels)
    if table is None:
        table = {name: posixpath.basename(posixpath.dirname(name)) or None for name in images}
    return [Item(name, table.get(name), origin) for name in hash_order(images, limit)]


def _check_protocols(url: str) -> None:
    """Raise where a file at the URL would say what else is opened, by templates that are run."""
    named = {link.partition("://")[0].strip().casefold() for link in url.split("::")}
    require(
        "reference" not in named,
        f"expected files themselves, got references to others: {url}; name their own place",
    )


def _table(
    url: str, names: list[str], images: list[str], labels: str | None
) -> dict[str, Label] | None:
    if labels is None and TABLE not in names:
        return None
    table_url = labels or f"{url.rstrip('/')}/{TABLE}"
    with _reasons(table_url):
        files, path = url_to_fs(table_url)
        content = _content(files, path)
        return read_labels(content.decode("utf-8-sig"), table_url, set(images))


def _names(files: fsspec.AbstractFileSystem, root: str) -> Iterator[str]:
    """Yield the paths of all files under a root, relative to it; "" where it is a file itself."""
    if isinstance(files, LocalFileSystem):  # its own `find` reads the size of every file
        if Path(root).is_file():
            yield ""
        yield from _local_names(root)
        return
    for path in files.find(root):
        yield path.removeprefix(root).lstrip("/")


def _local_names(root: str) -> Iterator[str]:
    """Yield the paths of all files under a folder; each folder is read once, whatever its links."""
    visited, folders, skipped = {os.path.realpath(root)}, [""], 0
    while folders:
        under = folders.pop()
        try:
            with os.scandir(_joined(root, under)) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
        except OSError:
            skipped += bool(under)
            continue
        for entry in entries:
            name = posixpath.join(under, entry.name)
            kind = _kind(entry)
            if kind == "file":
                yield name
            elif kind != "folder":
                skipped += _is_image(name)
            elif (real := os.path.realpath(entry.path)) not in visited:
                visited.add(real)
                folders.append(name)
    if skipped:
        warnings.warn(
            f"{skipped} of the names in {root} are no files (pipes, devices, broken links, folders "
            "that cannot be read): left out",
            UnilensWarning,
            stacklevel=2,
        )


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        return "file" if entry.is_file() else "folder" if entry.is_dir() else "neither"
    except OSError:  # a link to itself
        return "neither"


def _content(files: fsspec.AbstractFileSystem, path: str) -> bytes:
    local = isinstance(files, LocalFileSystem)
    return read_file(path) if local else bytes(files.cat_file(path))


def read_file(path: str) -> bytes:
    """Return the content of a local file.

    Raises:
        OSError: it is missing, larger than `MAX_BYTES`, or a folder, a pipe or a device.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 - a descriptor
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no file, but a folder, a pipe or a device")
        if status.st_size > MAX_BYTES:
            raise OSError(f"expected at most {MAX_BYTES} bytes, got {status.st_size}")
        return file.read()


def _is_image(name: str) -> bool:
    """Whether a name has the suffix of a readable image and is not hidden."""
    if any(part.startswith(".") for part in name.split("/")):
        return False
    Image.init()
    kind = Image.registered_extensions().get(posixpath.splitext(name)[1].lower())
    return kind in Image.OPEN and kind not in STUBS


def _joined(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}" if root else name


@contextmanager
def _reasons(url: str) -> Iterator[None]:
    """Raise errors of reading a URL as `UnilensError`."""
    try:
        yield
    except UnilensError:
        raise
    except FileNotFoundError:
        raise UnilensError(f"no such file: {url}") from None
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None)
        remedy = f"pip install {missing}" if missing else str(error)
        raise UnilensError(f"a package is missing to read {url}; run: {remedy}") from None
    except UnicodeDecodeError:
        raise UnilensError(f"expected a table of labels in UTF-8: {url}") from None
    except Exception as error:  # file systems raise whatever their network libraries raise
        raise UnilensError(f"could not read {url}: {first_line(error)}") from error

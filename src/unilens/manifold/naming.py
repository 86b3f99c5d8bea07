"""A manifold by its name, its file, or the function that makes it."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import cast

from .._validation.imports import CODE, check_place, import_from_string
from ..errors import require
from .files import load_manifold
from .tangent import Manifold
from .transformations import Transformations

TRANSFORMATIONS = "transformations"


def check_manifold_name(given: Manifold | str | Path) -> None:
    """Raise unless it is a manifold, or can be the name of one; nothing is imported or opened.

    Plans and records name manifolds, and are read without running what they name.

    Raises:
        UnilensError: it is neither.
    """
    if isinstance(given, str) and given.startswith(CODE):
        check_place(given.removeprefix(CODE))
    elif not isinstance(given, (str, Path)):
        _check_manifold(given)


def as_manifold(given: Manifold | str | Path) -> Manifold:
    """Return a manifold.

    Args:
        given: a manifold; "transformations"; the file of one that was saved; or
            `py:package.module:function`, whose function returns one.

    Raises:
        UnilensError: it is none of these.
    """
    if isinstance(given, str) and given == TRANSFORMATIONS:
        return Transformations()
    if isinstance(given, str) and given.startswith(CODE):
        return _made(given)
    if isinstance(given, (str, Path)):
        return _loaded(*_identity(Path(given)))
    _check_manifold(given)
    return given


def _check_manifold(given: object) -> None:
    require(
        callable(given) and not isinstance(given, type),
        f"expected a manifold, its name or its file, got {getattr(given, '__name__', type(given))}",
    )


def _identity(path: Path) -> tuple[Path, tuple[int, ...]]:
    """Return the absolute path, and what identifies the file there: time, size and inode."""
    try:
        status = path.resolve().stat()
    except (OSError, ValueError):  # a name that no file can have
        return path, ()
    return path.resolve(), (status.st_mtime_ns, status.st_size, status.st_ino)


@functools.lru_cache(maxsize=8)
def _made(given: str) -> Manifold:
    """Return the manifold that a user's function makes, called once."""
    made = import_from_string(given.removeprefix(CODE))()
    require(callable(made), f"expected {given} to return a manifold, got {type(made).__name__}")
    return cast(Manifold, made)


@functools.lru_cache(maxsize=8)
def _loaded(path: Path, _identity: tuple[int, ...]) -> Manifold:
    """Return the manifold in a file, read once: the same object is the same manifold."""
    return load_manifold(path)

"""Functions of the user by their place, as in `py:package.module:function`.

This is the only part of unilens that imports what it is given by name.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UnilensError, require

CODE = "py:"
"""How names that are imported begin."""
_NAME = r"(?!\d)\w+(?:\.(?!\d)\w+)*"
_PLACE = re.compile(rf"{_NAME}:{_NAME}")
_SAFE_PATH = "PYTHONSAFEPATH"
"""Environment variable by which Python leaves the current folder out of `sys.path`."""
_searches_current_folder = False


def check_place(place: str) -> None:
    """Raise unless a text has the form `package.module:function`; nothing is imported."""
    require(
        bool(_PLACE.fullmatch(place)),
        f"expected {CODE}package.module:function, got {CODE}{place}",
    )


def import_from_string(place: str) -> Any:
    """Return what is at `package.module:function`.

    Raises:
        UnilensError: there is no such module or function.
    """
    module, _, name = place.partition(":")
    expected = f"expected {CODE}package.module:function"
    try:
        function = imported(place)
    except UnilensError:
        raise
    except (ImportError, ValueError) as error:
        raise UnilensError(f"{expected}, but {module!r} cannot be imported: {error}") from error
    except AttributeError:
        function = None
    if not callable(function):
        raise UnilensError(f"{expected}, but {module!r} has no function {name!r}")
    return function


def imported(place: str) -> Any:
    """Return what is at `package.module:name`; errors of the import are raised as they are."""
    check_place(place)
    current = _current_folder()
    if _searches_current_folder and current is not None and current not in sys.path:
        sys.path.append(current)
    return pkgutil.resolve_name(place)


def searches_current_folder() -> bool:
    """Whether the current folder is searched for what the user names, after all others."""
    return _searches_current_folder


def search_current_folder(search: bool) -> None:
    """Say whether the current folder is searched for what the user names, after all others."""
    global _searches_current_folder
    _searches_current_folder = search


@contextmanager
def current_folder_last() -> Iterator[None]:
    """Search the current folder for what the user names, after all others, and for nothing else.

    A file beside the data, such as `timm.py`, is no part of a library. Python processes that are
    started inside do not search their current folder either.
    """
    path, before = list(sys.path), _searches_current_folder
    variable = os.environ.get(_SAFE_PATH)
    current, own = _current_folder(), _own_folders()
    sys.path[:] = [
        entry
        for entry in path
        if entry and (os.path.realpath(entry) != current or os.path.realpath(entry) in own)
    ]
    os.environ[_SAFE_PATH] = "1"
    search_current_folder(True)
    try:
        yield
    finally:
        search_current_folder(before)
        sys.path[:] = path
        if variable is None:
            del os.environ[_SAFE_PATH]
        else:
            os.environ[_SAFE_PATH] = variable


def _current_folder() -> str | None:
    try:
        return os.path.realpath(os.getcwd())  # noqa: PTH109 - as in sys.path
    except FileNotFoundError:  # it was removed
        return None


def _own_folders() -> set[str]:
    """Return the folders of Python, of installed packages and of unilens itself."""
    installed = sysconfig.get_paths()
    folders = [installed[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return {os.path.realpath(folder) for folder in (*folders, str(Path(__file__).parents[2]))}

"""The commit of a checkout, read from the files of git.

A folder's own `.git/config` names programs that git runs (`core.fsmonitor`, filters, hooks), so
git is not called: a folder of data may come from anybody.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REF = re.compile(r"refs/(?!.*\.\.)[^\s\\\x00]+")
_SMALL, _PACKED = 4096, 64 * 2**20
"""Bytes that are read of a file with one line, and of all packed references."""


def root_of(folder: Path) -> Path | None:
    """Return the nearest folder that is a checkout, upwards; None outside one."""
    return next((place for place in (folder, *folder.parents) if (place / ".git").exists()), None)


def commit_of(folder: Path) -> str | None:
    """Return the commit of the checkout that a folder is in; None where that is not known."""
    root = root_of(folder)
    if root is None:
        return None
    own = root / ".git"
    if own.is_file():  # of a worktree or a submodule
        prefix, _, place = _read(own).partition(":")
        own = root / place.strip()
        if prefix != "gitdir" or not place.strip():
            return None
    shared = own / (_read(own / "commondir") or ".")
    prefix, colon, name = _read(own / "HEAD").partition(":")
    if not colon:
        return _commit(prefix)
    name = name.strip()
    if prefix != "ref" or not _REF.fullmatch(name):
        return None
    return _commit(_read(own / name)) or _commit(_read(shared / name)) or _packed(shared, name)


def _packed(shared: Path, name: str) -> str | None:
    """Return the commit of a reference in `packed-refs`."""
    for line in _read(shared / "packed-refs", _PACKED).splitlines():
        commit, _, named = line.partition(" ")
        if named == name:
            return _commit(commit)
    return None


def _commit(text: str) -> str | None:
    return text if _COMMIT.fullmatch(text) else None


def _read(path: Path, most: int = _SMALL) -> str:
    """Return the text of a regular file; "" where there is none, or it cannot be read."""
    try:
        opened = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe has no writer
    except (OSError, ValueError):
        return ""
    try:
        regular = stat.S_ISREG(os.fstat(opened).st_mode)
        content = os.read(opened, most) if regular else b""
    finally:
        os.close(opened)
    return content.decode("utf-8", "replace").strip()

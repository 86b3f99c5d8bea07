"""The folder of a page's files, removed at its end or, if that was sudden, at the next start."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX, LOCK = "unilens-app-", "lock"


@contextmanager
def page_folder(parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder that nobody else can read, and remove it at the end.

    A file in it is locked for as long as the process lives. The folders of processes that ended
    without removing theirs are removed first.

    Args:
        parent: where it is made; None for the folder of temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    remove_abandoned(parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    lock = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
    try:
        _try_lock(lock)
        (folder / f"{LOCK}.new").rename(folder / LOCK)  # locked before anybody can see it
        yield folder
    finally:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
        if sys.platform != "win32":
            os.close(lock)


def remove_abandoned(parent: Path) -> list[Path]:
    """Remove the folders of pages whose process has ended, and return them.

    Only folders that this user owns and nobody else can write, with a lock that no process holds.
    """
    removed = []
    if sys.platform != "win32":
        for folder in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if _is_own(folder) and _is_abandoned(folder):
                    shutil.rmtree(folder)  # follows no links
                    removed.append(folder)
    return removed


def _is_own(folder: Path) -> bool:
    """Return whether a folder, and no link to one, belongs to this user alone."""
    status = folder.lstat()
    private = stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
    return private and sys.platform != "win32" and status.st_uid == os.getuid()


def _is_abandoned(folder: Path) -> bool:
    """Return whether no process holds the lock of a folder; False where there is none."""
    lock = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | _NONBLOCK)
    try:
        return stat.S_ISREG(os.fstat(lock).st_mode) and _try_lock(lock)
    finally:
        os.close(lock)


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def _try_lock(file: int) -> bool:
    """Lock a file for this process; return False if another one has locked it."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

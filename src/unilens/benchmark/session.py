"""One session of a run: what it tells while it goes, where it logs, and how it ended."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnilensError

WRITE_EVERY = 10.0
"""Seconds: what an interruption can cost, beside the map that is being made."""
WRITE_AT = 5000
"""Rows that are kept in memory, at the most."""

Told = Callable[[int, int, int, str], None]
"""Is told how many rows there are, how many are planned, how many failed, and of which image."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        written: rows, in this session.
        before: rows that were there.
        failed: rows of the whole run that failed.
        seconds: that this session took.
    """

    written: int
    before: int
    failed: int
    seconds: float


def quiet(done: int, planned: int, failed: int, what: str) -> None:
    """Be told, and do nothing with it."""


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what unilens logs to a file, beside wherever it goes anyway."""
    logger = logging.getLogger("unilens")
    level = logger.level
    try:
        handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UnilensError(f"could not write {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)

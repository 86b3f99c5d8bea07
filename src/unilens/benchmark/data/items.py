"""An image that is known by its name and read when its turn comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qsl

from PIL import Image

from ...errors import require

Label = int | str | None
"""The index of a class, a name that a model may know, or None where nothing is known."""


class Origin(Protocol):
    """Where images are; small, since it is sent to workers with each of them."""

    def load(self, name: str) -> Image.Image:
        """Read the image of that name as upright RGB."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a source.

    Attributes:
        name: unique within the source: the path in the folder, or `test/000123`.
        label: of its class.
        origin: what reads it.
    """

    name: str
    label: Label
    origin: Origin

    @property
    def key(self) -> str:
        """The name as any file can hold it: bytes of it that are no UTF-8 are spelled out."""
        return writable(self.name)

    def load(self) -> Image.Image:
        """Read the image as upright RGB.

        Raises:
            UnilensError: it is missing or broken.
        """
        return self.origin.load(self.name)


def writable(text: str) -> str:
    """Return a text as UTF-8 can write it: bytes that it cannot are spelled out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def spread(names: Iterable[str], limit: int | None = None) -> list[str]:
    """Return the first `limit` of the names in the order of their hashes.

    Any such beginning is a random sample, of all classes in proportion, and a longer one contains
    the shorter; it depends on the names alone, not on where they are kept.
    """
    require(
        limit is None or (isinstance(limit, int) and limit >= 1),
        f"expected limit to be at least 1, or None for all, got {limit!r}",
    )
    return sorted(names, key=lambda name: (_hash(name), name))[:limit]


def numbered(part: str, count: int, limit: int | None) -> dict[str, int]:
    """Return names for the images of a data set without any, and their places, spread."""
    return {
        name: place_of(name) for name in spread((f"{part}/{i:06d}" for i in range(count)), limit)
    }


def place_of(name: str) -> int:
    """Return the place in its data set of an image that has been `numbered`."""
    return int(name.rpartition("/")[2])


def read_settings(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of `NAME?setting=value&other=value`."""
    name, _, query = text.partition("?")
    return name, {key: _read(value) for key, value in parse_qsl(query, keep_blank_values=True)}


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()

"""An image of a data set, read when it is needed."""

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
"""The index of a class, the name of one, or None."""


class Origin(Protocol):
    """The location of images; small, since it is sent to workers with each of them."""

    def load(self, name: str) -> Image.Image:
        """Read the image of that name as upright RGB."""


@dataclass(frozen=True, slots=True)
class Item:
    """An image of a source.

    Attributes:
        name: unique within the source: the path in the folder, or `test/000123`.
        label: of its class.
        origin: reads it.
    """

    name: str
    label: Label
    origin: Origin

    @property
    def key(self) -> str:
        """The name as valid UTF-8; other bytes are escaped."""
        return writable(self.name)

    def load(self) -> Image.Image:
        """Read the image as upright RGB.

        Raises:
            UnilensError: it is missing or broken.
        """
        return self.origin.load(self.name)


def writable(text: str) -> str:
    """Return a text as valid UTF-8; other bytes are escaped."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def hash_order(names: Iterable[str], limit: int | None = None) -> list[str]:
    """Return the first `limit` of the names in the order of their hashes.

    Any such prefix is a random sample; it depends on the names only, not on where the data are
    stored.
    """
    require(
        limit is None or (isinstance(limit, int) and limit >= 1),
        f"expected limit to be at least 1, or None for all, got {limit!r}",
    )
    return sorted(names, key=lambda name: (_hash(name), name))[:limit]


def numbered_names(part: str, count: int, limit: int | None) -> dict[str, int]:
    """Return made-up names of a data set's images with their indices, in hash order."""
    return {
        name: index_of(name)
        for name in hash_order((f"{part}/{i:06d}" for i in range(count)), limit)
    }


def index_of(name: str) -> int:
    """Return the index in its data set of an image with a numbered name."""
    return int(name.rpartition("/")[2])


def read_settings(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the settings of `NAME?setting=value&other=value`."""
    name, _, query = text.partition("?")
    return name, {key: _read(value) for key, value in parse_qsl(query, keep_blank_values=True)}


def _read(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _hash(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()

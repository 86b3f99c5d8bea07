"""The rows that a run has, by their keys."""

from __future__ import annotations

UnitKey = tuple[str, str, int, str]
"""Image, corruption, severity and model."""


class RowIndex:
    """The keys of the rows that exist: 18 million take a hundred megabytes.

    Each unit has an integer in which each pair of method and metric is a bit.

    Attributes:
        failed: number of failed rows.
        contents: digests of the model's inputs.
    """

    def __init__(self) -> None:
        self.failed = 0
        self.contents: dict[UnitKey, str] = {}
        self._bits: dict[tuple[str, str], int] = {}
        self._units: dict[UnitKey, int] = {}

    def add(self, key: UnitKey, method: str, metric: str) -> bool:
        """Add a row; return whether it is new."""
        bit = self._bits.setdefault((method, metric), 1 << len(self._bits))
        before = self._units.get(key, 0)
        self._units[key] = before | bit
        return not before & bit

    def has(self, key: UnitKey, method: str, metric: str) -> bool:
        """Return whether a row exists."""
        return bool(self._units.get(key, 0) & self._bits.get((method, metric), 0))

    @property
    def images(self) -> set[str]:
        """The names of the images that have rows."""
        return {key[0] for key in self._units}

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._units.values())

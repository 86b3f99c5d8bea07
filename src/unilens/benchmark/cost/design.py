"""What a cost study varies: one thing at a time about a centre."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, Field

from ...registry import Entry

Size = Annotated[int, Field(ge=1)]
Sizes = Annotated[tuple[Size, ...], Field(min_length=1)]

FORWARD, BOTH = "bare forward", "bare forward and backward"
PREPARED_FORWARD, PREPARED_BOTH = "prepared forward", "prepared forward and backward"
YARDSTICKS = (FORWARD, BOTH, PREPARED_FORWARD, PREPARED_BOTH)
"""What stands in the place of a method where the model alone is run: bare, as it comes from its
library, or prepared, as `Evaluator` runs it."""

COUNTS = ("n_samples", "n_masks", "designs", "classes", "n_steps")
"""The settings that say how often a method runs the model: the first that it has counts as its
number of steps."""


class Point(BaseModel, extra="forbid", frozen=True):
    """What is explained, and how closely.

    Attributes:
        resolution: pixels a side.
        n_steps: of a path, or what stands in its place; see `COUNTS`.
        batch: images per call.
    """

    resolution: Size = 224
    n_steps: Size = 4
    batch: Size = 1


class Place(NamedTuple):
    """One measurement: what is run, and where; `n_steps` is None for what has no steps."""

    model: str
    method: str
    resolution: int
    n_steps: int | None
    batch: int


class Cost(BaseModel, extra="forbid", frozen=True):
    """What costs are measured at.

    One thing is varied at a time while the others stay at the centre: the number of measurements
    is the sum, not the product, of the lists' lengths. What it cannot show is whether two of them
    act together; that costs multiply is an assumption of the projection.

    Attributes:
        resolutions: pixels a side.
        n_steps: of a path, or what stands in its place; see `COUNTS`.
        batches: images per call.
        centre: where the others stay while one is varied.
        repeats: of each measurement, after one for warmth; fast ones are repeated more often.
        seconds: after which a measurement is not repeated.
        also: models of which single passes alone are measured, at the centre and with random
            weights: the maps' costs carry over in multiples of prepared ones.
    """

    resolutions: Sizes = (112, 160, 224, 320)
    n_steps: Sizes = (2, 4, 8, 16)
    batches: Sizes = (1, 2, 4)
    centre: Point = Point()
    repeats: int = Field(default=3, ge=1)
    seconds: float = Field(default=5.0, ge=0)
    also: tuple[str, ...] = ()

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """The resolutions and batches, the centre's first."""
        centre = self.centre
        found = [(centre.resolution, centre.batch)]
        found += [(resolution, centre.batch) for resolution in self.resolutions]
        found += [(centre.resolution, batch) for batch in self.batches]
        return list(dict.fromkeys(found))

    def steps_at(self, resolution: int, batch: int) -> list[int]:
        """Return the numbers of steps: several at the centre, the centre's own elsewhere."""
        centre = self.centre
        if (resolution, batch) != (centre.resolution, centre.batch):
            return [centre.n_steps]
        return list(dict.fromkeys([centre.n_steps, *self.n_steps]))

    def not_in(self, other: Cost) -> Iterator[tuple[str, str]]:
        """Yield the keys of what another study would not measure, or measure otherwise, and how."""
        for key in ("centre", "repeats", "seconds"):
            was, now = getattr(self, key), getattr(other, key)
            if was != now:
                yield key, f"was {was!r}, now {now!r}"
        for key in ("resolutions", "n_steps", "batches", "also"):
            gone = [str(one) for one in getattr(self, key) if one not in getattr(other, key)]
            if gone:
                yield key, f"{', '.join(gone)} left out"


def counted_by(entry: Entry[Any]) -> str | None:
    """Return which setting of a method is its number of steps; None where it has none."""
    return next((name for name in COUNTS if name in entry.settings), None)

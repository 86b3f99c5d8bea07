"""Images of which it is known what their network reads."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from ...errors import require
from ...models.known_truth import Example, known_truth
from .items import Item, index_of, numbered_names


@dataclass(frozen=True, slots=True)
class TruthSet:
    """The images of a network whose reasons are known.

    Attributes:
        name: of the network.
    """

    name: str

    def load(self, name: str) -> Image.Image:
        """Return the image of that name."""
        return self.example(name).image

    def example(self, name: str) -> Example:
        """Return the image of that name with the truth about it."""
        return known_truth(self.name).examples()[index_of(name)]


def list_truth(
    name: str, *, split: str | None = None, limit: int | None = None, by_index: bool = False
) -> list[Item]:
    """Return the images of `truth:NAME`; see `open_source`."""
    require(
        split is None and not by_index,
        f"expected neither split nor labels with truth:{name}, which has one split and its labels",
    )
    examples = known_truth(name).examples()
    return [
        Item(image, examples[index].label, TruthSet(name))
        for image, index in numbered_names(name, len(examples), limit).items()
    ]

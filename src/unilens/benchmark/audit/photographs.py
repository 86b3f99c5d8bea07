"""The photographs of an audit: read once, with the marks that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as transforms

from ...errors import UnilensError, require
from ...models import PixelClassifier
from ..data import Item
from .marks import Box, SharedMark, find_marks, same_photographs
from .regions import BACKGROUND, CORNERS, Region, place_of, seen_of, usual_regions

_SHORTER, _CORNER = 256, 64
"""Shorter side of a photograph, and side of its corners, in which shared marks are searched."""
_LEAST_SEEN = 0.3
"""Share of a mark within the model's view from which the model sees it."""

ProgressCallback = Callable[[int, int, str], None]
"""Called with the numbers of photographs done and planned, and what is being done."""


@dataclass(frozen=True, slots=True)
class PlacedMark:
    """A shared mark with its place in each photograph.

    Attributes:
        name: of its region.
        place: in words: "the bottom right corner".
        boxes: in pixels of the model's view, or of the photograph, by the photograph's index.
        of_view: whether the boxes are in the model's view.
    """

    name: str
    place: str
    boxes: Mapping[int, Box]
    of_view: bool


@dataclass
class Photographs:
    """Photographs that can be read.

    Attributes:
        classifier: whose preprocessing they go through.
        items: the photographs.
        sizes: width and height of each.
        objects: boxes of the objects in pixels of the photograph, by its name.
        marks: that they share.
        same_layout: whether they are alike over most of their area.
        same: which of them show the same photograph `(n, n)`; None if that is not known.
        broken: reasons why others could not be read, by name.
    """

    classifier: PixelClassifier
    items: list[Item] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    objects: Mapping[str, Sequence[Box]] = field(default_factory=dict)
    marks: list[PlacedMark] = field(default_factory=list)
    same_layout: bool = False
    same: Tensor | None = None
    broken: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        classifier: PixelClassifier,
        items: Sequence[Item],
        objects: Mapping[str, Sequence[Box]],
        on_progress: ProgressCallback,
    ) -> Photographs:
        """Read photographs and find the marks that they share.

        Raises:
            UnilensError: none of them can be read.
        """
        photographs = cls(classifier, objects=objects)
        views, corners = [], []
        for number, item in enumerate(items):
            on_progress(number, len(items), f"reading {item.key}")
            try:
                image = item.load()
                views.append(classifier.preprocess(image).mean(0))
            except UnilensError as error:
                photographs.broken[item.key] = str(error)
                continue
            corners.append(_corners_of(image))
            photographs.items.append(item)
            photographs.sizes.append(image.size)
        reason = next(iter(photographs.broken.values()), "")
        require(bool(views), f"expected photographs that can be read, got none: {reason}")
        photographs._find_marks(torch.stack(views), torch.stack(corners, 1))
        return photographs

    def view(self, index: int) -> Tensor:
        """Return a photograph as the model sees it `(C, H, W)`."""
        return self.classifier.preprocess(self.items[index].load())

    def regions(self, index: int, view: Tensor) -> list[Region]:
        """Return the regions of a photograph that are measured."""
        regions = usual_regions(view)
        for mark in self.marks:
            if index in mark.boxes:
                mask = self._mask_of(mark, index, view)
                if mask.any() and not mask.all():
                    regions.append(Region.of(mark.name, mask))
        boxes = self.objects.get(self.items[index].key)
        if boxes:
            mask = ~seen_of(self.classifier, self.sizes[index], boxes)
            if mask.any():
                regions.append(Region.of(BACKGROUND, mask, compared=False))
        return regions

    def distinct(self, indices: Iterable[int]) -> list[int]:
        """Return the indices without those of further copies of a photograph."""
        kept: list[int] = []
        for index in indices:
            if self.same is None or not self.same[index, kept].any():
                kept.append(index)
        return kept

    def _mask_of(self, mark: PlacedMark, index: int, view: Tensor) -> Tensor:
        left, top, right, bottom = mark.boxes[index]
        if not mark.of_view:
            seen = seen_of(self.classifier, self.sizes[index], [mark.boxes[index]])
            return seen if _is_seen(seen, mark.boxes[index], self.sizes[index]) else seen & False
        mask = torch.zeros(view.shape[1:], dtype=torch.bool)
        mask[top:bottom, left:right] = True
        return mask

    def _find_marks(self, views: Tensor, corners: Tensor) -> None:
        """Find marks in the views `(n, H, W)` and in the photographs' corners `(4, n, h, w)`."""
        same = self.same = same_photographs(views)
        for mark in find_marks(views, same):
            self.same_layout |= mark.is_layout
            if not mark.is_layout:
                boxes = dict.fromkeys(mark.members, mark.box)
                self._add(place_of(mark.box, *views.shape[1:]), boxes, of_view=True)
        beside = corners[[1, 0, 3, 2]]
        for name, frames, others in zip(CORNERS, corners, beside, strict=True):
            for mark in find_marks(frames, same, others):
                boxes = {member: self._in_photograph(mark, member, name) for member in mark.members}
                if not self.same_layout and not self._is_known(mark):
                    self._add(f"the {name}", boxes, of_view=False)

    def _add(self, place: str, boxes: Mapping[int, Box], *, of_view: bool) -> None:
        self.marks.append(PlacedMark(f"mark {len(self.marks) + 1}", place, boxes, of_view))

    def _is_known(self, mark: SharedMark) -> bool:
        own = set(mark.members)
        known = (set(other.boxes) for other in self.marks)
        return any(2 * len(own & other) > min(len(own), len(other)) for other in known)

    def _in_photograph(self, mark: SharedMark, index: int, corner: str) -> Box:
        """Return the box of a mark of a corner in the pixels of a photograph."""
        width, height = self.sizes[index]
        scale = min(width, height) / _SHORTER
        across = 0 if "left" in corner else width - _CORNER * scale
        down = 0 if corner.startswith("top") else height - _CORNER * scale
        left, top, right, bottom = (side * scale for side in mark.box)
        return (
            round(across + left),
            round(down + top),
            round(across + right),
            round(down + bottom),
        )


def _is_seen(seen: Tensor, box: Box, size: tuple[int, int]) -> bool:
    """Whether enough of a box in a photograph is within the model's view."""
    share = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
    return float(seen.float().mean()) > _LEAST_SEEN * share


def _corners_of(image: Image.Image) -> Tensor:
    """Return the grey corners of a photograph `(4, h, w)`, at the size of 256 pixels a side."""
    grey = transforms.to_tensor(transforms.resize(image.convert("L"), _SHORTER, antialias=True))[0]
    first, last = slice(0, _CORNER), slice(-_CORNER, None)
    return torch.stack([grey[rows, columns] for rows in (first, last) for columns in (first, last)])

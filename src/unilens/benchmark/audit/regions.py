"""Regions of photographs that a model should seldom need: corners, border, text, marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ...models import PixelClassifier
from .marks import Box

CORNERS = ("top left corner", "top right corner", "bottom left corner", "bottom right corner")
BORDER, TEXT, BACKGROUND = "border", "text-like parts", "background"
_CORNER = 1 / 7
"""Side of a corner, as a share of the shorter side."""
_BORDER = 1 / 14
_CONTRAST = 0.2
"""Between a stroke and what surrounds it, from which it can be part of a letter."""
_STROKE = 3
"""Half of the largest width of a stroke, in pixels."""
_LETTER_HEIGHTS = (5, 32)
_FEWEST_LETTERS = 3


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the photograph as the model sees it.

    Attributes:
        name: one of the names of this module, or of a mark.
        mask: `(H, W)`, true inside.
        mirrored: its mirror images elsewhere, `(n, H, W)`, with which it is compared; none for
            regions that have no counterpart.
    """

    name: str
    mask: Tensor
    mirrored: Tensor

    @classmethod
    def of(cls, name: str, mask: Tensor, compared: bool = True) -> Region:
        """Return a region; its mirror images leave out what lies in the region itself."""
        flips = [mask.flip(0), mask.flip(1), mask.flip(0, 1)] if compared else []
        kept = [flip & ~mask for flip in flips]
        whole = [flip for flip in kept if flip.sum() * 2 > mask.sum()]
        return cls(name, mask, torch.stack(whole) if whole else mask.new_zeros(0, *mask.shape))


def usual_regions(view: Tensor) -> list[Region]:
    """Return corners, border and text-like parts of a view `(C, H, W)`; empty ones are left out."""
    height, width = view.shape[1:]
    side = max(1, round(_CORNER * min(height, width)))
    empty = torch.zeros(height, width, dtype=torch.bool)
    regions = []
    for name in CORNERS:
        mask = empty.clone()
        rows = slice(0, side) if name.startswith("top") else slice(-side, None)
        columns = slice(0, side) if "left" in name else slice(-side, None)
        mask[rows, columns] = True
        regions.append(Region.of(name, mask))
    ring = max(1, round(_BORDER * min(height, width)))
    border = ~empty
    border[ring:-ring, ring:-ring] = False
    regions.append(Region.of(BORDER, border, compared=False))
    text = text_like(view.mean(0))
    return [*regions, Region.of(TEXT, text)] if text.any() else regions


def text_like(grey: Tensor) -> Tensor:
    """Return where a grey view `(H, W)` has rows of small sharp strokes, as text has.

    Strokes are thin and differ from what surrounds them; those of similar height beside each other
    make a row. Railings, windows and grids can do so as well, and text too small or too large for
    the model's input is missed.
    """
    from skimage.measure import label, regionprops
    from skimage.morphology import black_tophat, disk, white_tophat

    values = grey.numpy()
    found = numpy.zeros(values.shape, dtype=bool)
    for tophat in (white_tophat, black_tophat):
        strokes = tophat(values, disk(_STROKE)) > _CONTRAST
        letters = [
            part.bbox
            for part in regionprops(label(strokes))
            if _LETTER_HEIGHTS[0] <= part.bbox[2] - part.bbox[0] <= _LETTER_HEIGHTS[1]
            and part.bbox[3] - part.bbox[1] <= 2 * (part.bbox[2] - part.bbox[0])
        ]
        for row in _rows(letters):
            top, left, bottom, right = zip(*row, strict=True)
            found[min(top) : max(bottom), min(left) : max(right)] = True
    return torch.from_numpy(found)


def _rows(letters: Sequence[Box]) -> list[list[Box]]:
    """Return the rows of at least three letters (top, left, bottom, right), each from the left."""
    rows: list[list[Box]] = []
    for letter in sorted(letters, key=lambda box: box[1]):
        row = next((row for row in rows if _follows(row[-1], letter)), None)
        if row is None:
            rows.append([letter])
        else:
            row.append(letter)
    return [row for row in rows if len(row) >= _FEWEST_LETTERS]


def _follows(before: Box, letter: Box) -> bool:
    """Whether a letter stands to the right of another, in line with it, and near."""
    heights = before[2] - before[0], letter[2] - letter[0]
    middles = (before[0] + before[2]) / 2, (letter[0] + letter[2]) / 2
    similar = max(heights) <= 1.5 * min(heights)
    in_line = abs(middles[0] - middles[1]) <= 0.3 * min(heights)
    gap = letter[1] - before[3]
    return similar and in_line and -1 <= gap <= max(heights)


def seen_of(classifier: PixelClassifier, size: tuple[int, int], boxes: Iterable[Box]) -> Tensor:
    """Return which pixels of the model's view lie in boxes of a photograph `(H, W)`.

    Args:
        classifier: whose preprocessing the boxes go through.
        size: width and height of the photograph.
        boxes: left, top, right and bottom in its pixels.
    """
    drawn = Image.new("RGB", size)
    pen = ImageDraw.Draw(drawn)
    for left, top, right, bottom in boxes:
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill="white")
    return classifier.preprocess(drawn).mean(0) > 0.5


def place_of(box: Box, height: int, width: int) -> str:
    """Return where a box lies: "the bottom right corner", "the top edge", "the middle"."""
    left, top, right, bottom = box
    row = _third((top + bottom) / 2 / height, "top", "bottom")
    column = _third((left + right) / 2 / width, "left", "right")
    if row and column:
        return f"the {row} {column} corner"
    return f"the {row or column} edge" if row or column else "the middle"


def _third(position: float, first: str, last: str) -> str:
    return first if position < 1 / 3 else last if position > 2 / 3 else ""

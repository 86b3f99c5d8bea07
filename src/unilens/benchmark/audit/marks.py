"""Marks that photographs share: the same pattern at the same place."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor
from torch.nn import functional

_SAME_PATTERN = 0.6
"""Correlation of gradients from which two windows show the same pattern."""
_MEMBER = 0.5
"""Correlation with a mark's mean pattern from which a photograph has it."""
_SAME_PHOTOGRAPH = 0.95
"""Correlation of two small grey photographs from which they count as one."""
_FEWEST = 5
_SIDE = 16
"""Of the windows, in pixels of a frame at half of its size."""
_STEP = _SIDE // 2
_FAINTEST = 0.02
"""Root mean square gradient below which a window shows no pattern."""
_LAYOUT = 1 / 3
"""Share of the frame from which on a pattern is the photographs' common layout, not a mark."""
_TOUCHING = _SIDE // _STEP
"""Steps between windows that touch."""
_SAME_MARK = 0.5
"""Overlap of their photographs from which neighbouring windows show one mark."""
_MOST_MARKS = 3

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels."""
Place = tuple[int, ...]
"""Row and column of a window."""


@dataclass(frozen=True, slots=True)
class SharedMark:
    """A pattern that several photographs have at the same place.

    Attributes:
        members: indices of the photographs.
        box: where it is in the frame; the right and bottom pixels are outside.
        is_layout: whether it covers so much that it is the photographs' layout.
    """

    members: tuple[int, ...]
    box: Box
    is_layout: bool = False


def same_photographs(frames: Tensor) -> Tensor:
    """Return which of the grey frames `(n, H, W)` show the same photograph `(n, n)`."""
    small = functional.adaptive_avg_pool2d(frames[:, None], 16).flatten(1)
    small = functional.normalize(small - small.mean(1, keepdim=True))
    return small @ small.T > _SAME_PHOTOGRAPH


def find_marks(frames: Tensor, same: Tensor, elsewhere: Tensor | None = None) -> list[SharedMark]:
    """Return the marks that grey frames share, the most frequent first.

    Windows of the frames' gradients are correlated at each place, and photographs above 0.6 share
    a pattern. How many do so by chance is measured between windows at different places of one
    height; a mark needs two more than twice as many photographs, and at least 5.

    Args:
        frames: `(n, H, W)` in [0, 1].
        same: `(n, n)`, photographs that count as one; see `same_photographs`.
        elsewhere: `(n, H, W)`, other parts of the photographs, with which chance is measured; None
            for the frames themselves, moved by half of their width.
    """
    gradients = _gradients(frames)
    if min(gradients.shape[2:]) < _SIDE:
        return []
    windows = _windows(gradients)
    if elsewhere is None:
        others = windows.roll(windows.shape[1] // 2, 1)
    else:
        others = _windows(_gradients(elsewhere))
    chance = int(_shared(windows, others, same).sum(-1).max())
    needed = max(_FEWEST, 2 * chance + 3)
    shared = _shared(windows, windows, same)
    counts, best = shared.sum(-1).max(-1)
    every = itertools.product(*map(range, counts.shape))
    places = [place for place in every if counts[place] + 1 >= needed]
    places.sort(key=lambda place: -int(counts[place]))
    members = {place: _members(windows[place], shared[place][best[place]]) for place in places}
    marks: list[SharedMark] = []
    while places:
        first = members[places[0]]
        alike = [place for place in places if _overlap(first, members[place]) > _SAME_MARK]
        joined = _connected(places[0], alike)
        places = [place for place in places if place not in joined]
        if _distinct(first, same) >= needed:
            marks.append(_mark(first, joined, gradients))
    return sorted(marks, key=lambda mark: -len(mark.members))[:_MOST_MARKS]


def _gradients(frames: Tensor) -> Tensor:
    """Return the gradients `(n, 2, H / 2, W / 2)` of the smoothed frames at half of their size."""
    weights = torch.tensor([0.25, 0.5, 0.25], dtype=frames.dtype)
    halved = functional.avg_pool2d(frames[:, None], 2)
    padded = functional.pad(halved, (1, 1, 1, 1), mode="replicate")
    smooth = functional.conv2d(padded, torch.outer(weights, weights)[None, None])
    wide = functional.pad(smooth, (1, 1, 1, 1), mode="replicate")
    across = wide[:, :, 1:-1, 2:] - wide[:, :, 1:-1, :-2]
    down = wide[:, :, 2:, 1:-1] - wide[:, :, :-2, 1:-1]
    return torch.cat([across, down], 1)


def _windows(gradients: Tensor) -> Tensor:
    """Return unit vectors `(rows, columns, n, d)`; zero where there is no pattern."""
    cut = gradients.unfold(2, _SIDE, _STEP).unfold(3, _SIDE, _STEP)
    vectors = cut.permute(2, 3, 0, 1, 4, 5).flatten(3)
    length = vectors.norm(dim=-1, keepdim=True)
    strong = length > _FAINTEST * vectors.shape[-1] ** 0.5
    return torch.where(strong, vectors / length.clamp(min=1e-12), 0.0)


def _shared(windows: Tensor, others: Tensor, same: Tensor) -> Tensor:
    """Return which photographs show the same pattern in windows `(rows, columns, n, n)`."""
    return (windows @ others.transpose(-1, -2) > _SAME_PATTERN) & ~same


def _members(vectors: Tensor, group: Tensor) -> tuple[int, ...]:
    """Return the photographs whose window `(n, d)` resembles the mean of a group's `(n,)`."""
    template = functional.normalize(vectors[group].mean(0), dim=0)
    return tuple((vectors @ template > _MEMBER).nonzero().flatten().tolist())


def _connected(start: Place, places: Sequence[Place]) -> list[Place]:
    """Return the places of windows that touch the one at the start, or one another up to it."""
    joined = [start]
    for place in joined:
        joined += [
            other
            for other in places
            if other not in joined and max(map(abs, numpy.subtract(place, other))) <= _TOUCHING
        ]
    return joined


def _overlap(first: Sequence[int], second: Sequence[int]) -> float:
    one, other = set(first), set(second)
    return len(one & other) / max(1, len(one | other))


def _distinct(members: Sequence[int], same: Tensor) -> int:
    """Return how many different photographs there are among the members."""
    chosen: list[int] = []
    for member in members:
        if not any(same[member, other] for other in chosen):
            chosen.append(member)
    return len(chosen)


def _mark(members: tuple[int, ...], places: Sequence[Place], gradients: Tensor) -> SharedMark:
    """Return a mark, its box drawn in to where the members' gradients agree."""
    rows, columns = zip(*places, strict=True)
    height, width = gradients.shape[2:]
    top, left = min(rows) * _STEP, min(columns) * _STEP
    bottom, right = max(rows) * _STEP + _SIDE, max(columns) * _STEP + _SIDE
    own = gradients[list(members), :, top:bottom, left:right]
    agreeing = own.mean(0).norm(dim=0)
    strong = agreeing > 0.25 * agreeing.max()
    inside_rows, inside_columns = strong.any(1).nonzero(), strong.any(0).nonzero()
    box = (
        max(0, 2 * (left + int(inside_columns.min()) - 1)),
        max(0, 2 * (top + int(inside_rows.min()) - 1)),
        min(2 * width, 2 * (left + int(inside_columns.max()) + 2)),
        min(2 * height, 2 * (top + int(inside_rows.max()) + 2)),
    )
    area = (box[2] - box[0]) * (box[3] - box[1]) / (4 * height * width)
    return SharedMark(members, box, area > _LAYOUT)

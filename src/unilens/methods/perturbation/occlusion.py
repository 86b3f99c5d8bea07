"""Occlusion: how far the score falls when a window masks a position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator
from ..._ops.precision import expand_like, to_float64
from ..._ops.spatial import spatial_shape_of
from ..._validation.settings import Count
from ...errors import NotApplicableError, require
from ...registry import Card
from .masking import GroupScores, MaskedScores, MaskingMethod, add_masking_method


class _SlidingWindow(NamedTuple):
    """A window that slides along one side of the input; lengths are in positions."""

    side: int
    window: int
    stride: int

    @property
    def stops(self) -> int:
        """The number of its stops; the last one reaches the end of the side or beyond."""
        return math.ceil((self.side - self.window) / self.stride) + 1

    def covers(self, stop: Tensor) -> Tensor:
        """Return which positions it covers at stops `(n,)`, as truths `(n, side)`."""
        offset = torch.arange(self.side) - stop.unsqueeze(1) * self.stride
        return (offset >= 0) & (offset < self.window)


@dataclass(frozen=True)
class Occlusion(MaskingMethod):
    """How far the score falls when a window masks a position: the mean over the windows that do.

    Where there are groups of values, each is masked once, and its value is the fall.

    Args:
        baseline: its values replace those of masked positions.
        score: what is explained, by name or as a function of logits and target.
        window: side of the window, in pixels or samples; None for a seventh of each side (32 of
            224 pixels). A window longer than a side covers it. Tables: one feature at a time.
        stride: from one window to the next, at most the window; None for half the window.

    References:
        Zeiler & Fergus 2014, arXiv 1311.2901.
    """

    grid_settings = ("window", "stride")

    window: Count | None = None
    stride: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.window is None or self.stride is None or self.stride <= self.window,
            f"expected stride to be at most the window {self.window}, so that every "
            f"position is masked, got {self.stride}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` for a window on a table, or as `MaskingMethod` does."""
        super().check(model, inputs)
        if inputs.ndim == 2 and (self.window, self.stride) != (None, None):
            raise NotApplicableError(
                "a table has no neighbourhoods to slide a window over; leave window and stride "
                "out to mask one feature at a time"
            )

    def _windows(self, shape: torch.Size) -> list[_SlidingWindow]:
        if len(shape) == 1:
            return [_SlidingWindow(shape[0], 1, 1)]
        windows = []
        for side in spatial_shape_of(shape):
            window = min(self.window or max(1, round(side / 7)), side)
            stride = min(self.stride or max(1, window // 2), window)
            windows.append(_SlidingWindow(side, window, stride))
        return windows

    def _points(self, shape: torch.Size) -> int:
        return math.prod(window.stops for window in self._windows(shape))

    def _map(self, masked: MaskedScores) -> Tensor:
        windows = self._windows(masked.shape)
        unmasked = masked.score_of(masked.context.outputs)
        total, times = masked.zeros(), masked.zeros()
        for index in masked.blocks(self._points(masked.shape)):
            stops = torch.unravel_index(index, [window.stops for window in windows])
            pairs = zip(windows, stops, strict=True)
            masks = _outer_product([window.covers(stop) for window, stop in pairs])
            falls = unmasked - masked.scores(~masks)
            for mask, fall in zip(masks.to(total), falls, strict=True):
                total += mask * expand_like(fall, total)
                times += mask
        return total / times

    def _group_points(self, count: int) -> int:
        return count

    def _group_sums(self, groups: GroupScores) -> dict[str, Tensor]:
        unmasked = to_float64(groups.masked.score_of(groups.masked.context.outputs))
        others = ~torch.eye(groups.count, dtype=torch.bool)
        return {"sums": unmasked.unsqueeze(1) - groups.scores(groups.count, others.__getitem__)}


def _outer_product(sides: Sequence[Tensor]) -> Tensor:
    """Return the products `(n, a, b, ...)` of truths `(n, a)`, `(n, b)`, ..., one per side."""
    product = sides[0]
    for side in sides[1:]:
        product = product.unsqueeze(-1) & side.view(len(side), *(1 for _ in product.shape[1:]), -1)
    return product


add_masking_method(
    Card(
        "occlusion",
        "perturbation",
        "how far the score falls when a window masks a position",
        "Zeiler & Fergus 2014, arXiv 1311.2901",
        traits=("passes_by_size", "positions"),
    ),
    Occlusion,
)

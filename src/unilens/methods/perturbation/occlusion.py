"""Occlusion: how far the score falls when a window hides a place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator
from ..._ops.precision import expand_like
from ..._ops.spatial import spatial_shape_of
from ..._validation.settings import Count
from ...errors import NotApplicableError, require
from ...registry import Card
from .masking import Masked, MaskingMethod, masks_with


class _Slide(NamedTuple):
    """A window that slides along one side of the input, in places."""

    side: int
    window: int
    stride: int

    @property
    def stops(self) -> int:
        """Where it stops: until it has reached the end of the side, or hangs over it."""
        return math.ceil((self.side - self.window) / self.stride) + 1

    def covers(self, stop: Tensor) -> Tensor:
        """Return which places it covers at stops `(n,)`, `(n, side)`."""
        offset = torch.arange(self.side) - stop.unsqueeze(1) * self.stride
        return (offset >= 0) & (offset < self.window)


@dataclass(frozen=True)
class Occlusion(MaskingMethod):
    """How far the score falls when a window hides a place: the mean over the windows that do.

    Args:
        baseline: what is put where a place is hidden.
        score: what is explained, by name or as a function of logits and target.
        window: side of the window, in pixels or samples; None for a seventh of each side (32 of
            224 pixels). Longer than a side, it covers all of it. Tables: one feature at a time.
        stride: from one window to the next; None for half the window. At most the window.

    References:
        Zeiler & Fergus 2014, arXiv 1311.2901.
    """

    window: Count | None = None
    stride: Count | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.window is None or self.stride is None or self.stride <= self.window,
            f"expected stride to be at most the window {self.window}, so that every place is "
            f"hidden once, got {self.stride}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` for a window on a table, or as `MaskingMethod` does."""
        super().check(model, inputs)
        if inputs.ndim == 2 and (self.window, self.stride) != (None, None):
            raise NotApplicableError(
                "a table has no neighbourhoods to slide a window over; leave window and stride "
                "out to hide one feature at a time"
            )

    def _slides(self, shape: torch.Size) -> list[_Slide]:
        if len(shape) == 1:
            return [_Slide(shape[0], 1, 1)]
        slides = []
        for side in spatial_shape_of(shape):
            window = min(self.window or max(1, round(side / 7)), side)
            slides.append(_Slide(side, window, min(self.stride or max(1, window // 2), window)))
        return slides

    def _points(self, shape: torch.Size) -> int:
        return math.prod(slide.stops for slide in self._slides(shape))

    def _map(self, hidden: Masked) -> Tensor:
        slides = self._slides(hidden.shape)
        whole = hidden.score_of(hidden.context.outputs)
        total, times = hidden.zeros(), hidden.zeros()
        for index in hidden.blocks(self._points(hidden.shape)):
            stops = torch.unravel_index(index, [slide.stops for slide in slides])
            covered = _outer([s.covers(stop) for s, stop in zip(slides, stops, strict=True)])
            falls = whole - hidden.scores(~covered)
            for one, fall in zip(covered.to(total), falls, strict=True):
                total += one * expand_like(fall, total)
                times += one
        return total / times


def _outer(sides: Sequence[Tensor]) -> Tensor:
    """Return the products `(n, a, b, ...)` of truths `(n, a)`, `(n, b)`, ..., one per side."""
    product = sides[0]
    for side in sides[1:]:
        product = product.unsqueeze(-1) & side.view(len(side), *(1 for _ in product.shape[1:]), -1)
    return product


masks_with(
    Card(
        "occlusion",
        "perturbation",
        "how far the score falls when a window hides a place",
        "Zeiler & Fergus 2014, arXiv 1311.2901",
        traits=("passes_by_size", "positions"),
    ),
    Occlusion,
)

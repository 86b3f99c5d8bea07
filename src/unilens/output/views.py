"""Inputs and maps with any order of axes, channels first, and what kind of input they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from .._engine.axes import Axes
from .._engine.channel_detection import of_shape
from .._validation.settings import check_channels, check_choice
from ..attribution import Attribution
from ..errors import UnilensError, require

Bands = Sequence[int]
"""Indices of the channels that are shown as red, green and blue."""
KINDS = {1: "row", 2: "series", 3: "image", 4: "volume"}
"""Of inputs, by their dimensions with channels first."""
_N_FRAMES = 6
_N_STRONGEST = 3
"""How many of the frames are the strongest; the others are evenly spaced."""


class Plane(NamedTuple):
    """One slice of a volume, or one frame of a clip.

    Attributes:
        axis: that it is a slice of: 0, 1 or 2.
        position: along that axis.
    """

    axis: int
    position: int

    def of(self, values: Tensor) -> Tensor:
        """Return the plane of values `(C, D, H, W)` as `(C, a, b)`."""
        return values.select(self.axis + 1, self.position)


@dataclass(frozen=True, slots=True)
class View:
    """How an input and its maps are shown.

    Attributes:
        axes: the axis of the channels.
        kind: one of the values of `KINDS`, or "clip".
        bands: see `as_rgb`.
        limits: the values that are black and white.
    """

    axes: Axes
    kind: str
    bands: Bands | None = None
    limits: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(
        cls,
        image: Tensor,
        attributions: Iterable[Attribution],
        bands: Bands | None = None,
        channels: str | int = "auto",
        kind: str = "auto",
    ) -> View:
        """Return how an input `(*S)` is shown.

        Args:
            image: the input.
            attributions: of it.
            bands: see `as_rgb`.
            channels: the axis of the channels; "auto" takes it from attributions or shape.
            kind: "volume" or "clip"; "auto" is a clip where there are three channels, or channels
                between the axes of time and space.
        """
        check_choice("kind", kind, ("auto", "volume", "clip"))
        axes = display_axes(image, attributions, channels)
        first = _to_first(image, axes)
        if first.ndim not in KINDS:
            raise UnilensError(
                "expected a row (F,), a series (C, T), an image (C, H, W), or a volume or clip "
                f"(C, D, H, W) to show, got {tuple(image.shape)}; index the batch, or print the "
                "attribution's values"
            )
        found = KINDS[first.ndim]
        if found == "volume":
            clip = len(first) == 3 or isinstance(axes.channels, int)
            found = kind if kind != "auto" else ("clip" if clip else "volume")
        deep = found in ("volume", "clip")
        return cls(axes, found, bands, _limits(first) if deep else (0.0, 1.0))

    def values(self, values: Tensor) -> Tensor:
        """Return an input or a map `(*S)` with its channels first."""
        return _to_first(values, self.axes).detach().cpu()

    def image(self, first: Tensor) -> Tensor:
        """Return an image or plane `(C, H, W)` as colours `(1 or 3, H, W)` in [0, 1]."""
        low, high = self.limits
        scaled = (first.detach().cpu().float().nan_to_num() - low) / ((high - low) or 1.0)
        return as_rgb(scaled.clamp(0, 1), self.bands)

    def planes(self, values: Tensor) -> list[Plane]:
        """Return the planes of a map `(C, D, H, W)` that are shown.

        Of a volume, the three through the strongest voxel, or through the middle where all are
        zero; of a clip, the strongest frames and some that are evenly spaced, in order.
        """
        strength = values.double().nan_to_num(0, 0, 0).sum(0).abs()
        if self.kind == "volume":
            flat = strength.argmax() if strength.any() else _middle(strength.shape)
            indices = torch.unravel_index(torch.as_tensor(flat), strength.shape)
            return [Plane(axis, int(index)) for axis, index in enumerate(indices)]
        frames = strength.flatten(1).sum(1)
        strongest = frames.argsort(descending=True, stable=True)[:_N_STRONGEST].tolist()
        free = sorted(set(range(len(frames))) - set(strongest))
        count = min(_N_FRAMES - len(strongest), len(free))
        spaced = [free[i * (len(free) - 1) // max(count - 1, 1)] for i in range(count)]
        return [Plane(0, frame) for frame in sorted(strongest + spaced)]


def display_axes(image: Tensor, attributions: Iterable[Attribution], channels: str | int) -> Axes:
    """Return the axes of an image `(*S)`, from its attributions or its shape."""
    check_channels(channels)
    if channels != "auto":
        if isinstance(channels, int):
            require(
                channels <= image.ndim,
                f"expected channels to be an axis up to {image.ndim} of an input "
                f"{tuple(image.shape)} in a batch, got {channels}",
            )
        return Axes(channels)
    for attribution in attributions:
        if "channels" in attribution.provenance:
            return attribution.axes
    if image.ndim < 2:
        return Axes()
    reading = of_shape(torch.Size((1, *image.shape)))
    return Axes(reading.channels, sure=reading.sure)


def _to_first(values: Tensor, axes: Axes) -> Tensor:
    return axes.to_first(values, 0) if values.ndim > 1 else values


def _limits(first: Tensor) -> tuple[float, float]:
    """Return the values that are black and white: 0 and 1, or quantiles of values beyond them."""
    known = first.detach().cpu().double().nan_to_num(0, 0, 0).numpy()
    if not known.size or (known.min() >= 0 and known.max() <= 1):
        return 0.0, 1.0
    low, high = (float(value) for value in numpy.quantile(known, (0.005, 0.995)))
    return (low, high) if high > low else (float(known.min()), float(known.max()))


def _middle(shape: Sequence[int]) -> int:
    """Return the index, in flattened values, of the position in the middle."""
    middle = [side // 2 for side in shape]
    return int(numpy.ravel_multi_index(middle, tuple(shape)))


def as_rgb(image: Tensor, bands: Bands | None = None) -> Tensor:
    """Return an image `(C, H, W)` as grey `(1, H, W)` or as red, green and blue `(3, H, W)`.

    Args:
        image: with any number of channels.
        bands: the three channels that are red, green and blue; None for all of three, or the mean
            of any other number, in grey.
    """
    count = len(image)
    if bands is not None:
        is_triple = isinstance(bands, (tuple, list)) and len(bands) == 3
        require(
            is_triple and all(type(band) is int and 0 <= band < count for band in bands),
            f"expected bands to be three numbers of channels from 0 to {count - 1}, got {bands!r}",
        )
        return image[list(bands)]
    return image if count in (1, 3) else image.mean(0, keepdim=True)

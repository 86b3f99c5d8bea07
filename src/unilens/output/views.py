"""Inputs and maps with any order of axes as images `(C, H, W)`: bands, series and volumes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.axes import Axes
from .._engine.channel_detection import of_shape
from .._validation.settings import check_channels
from ..attribution import Attribution
from ..errors import UnilensError, require

Bands = Sequence[int]
"""Indices of the channels that are shown as red, green and blue."""


@dataclass(frozen=True, slots=True)
class View:
    """How an input and its maps are shown.

    Attributes:
        axes: the axis of the channels.
        bands: see `as_rgb`.
        limits: the values that are black and white; those of a series are its minimum and maximum.
    """

    axes: Axes
    bands: Bands | None = None
    limits: tuple[float, float] = (0.0, 1.0)

    @classmethod
    def of(
        cls,
        image: Tensor,
        attributions: Iterable[Attribution],
        bands: Bands | None,
        channels: str | int,
    ) -> View:
        """Return how an image is shown; "auto" channels are those of its attributions or shape."""
        axes = display_axes(image, attributions, channels)
        series = axes.to_first(image, 0).ndim == 2
        limits = (float(image.min()), float(image.max())) if series else (0.0, 1.0)
        return cls(axes, bands, limits)

    @property
    def aspect(self) -> str:
        """Matplotlib's aspect: a series fills the width, pixels are square."""
        return "equal" if self.limits == (0.0, 1.0) else "auto"

    def image(self, image: Tensor) -> Tensor:
        """Return an input or a baseline `(*S)` as colours `(1, H, W)` or `(3, H, W)` in [0, 1]."""
        low, high = self.limits
        values = _as_image(image, self.axes).detach().cpu().float()
        scaled = (values - low) / ((high - low) or 1.0)
        return as_rgb(scaled.clamp(0, 1), self.bands)

    def values(self, values: Tensor) -> Tensor:
        """Return a map `(*S)` as `(C, H, W)`."""
        return _as_image(values, self.axes)


def display_axes(image: Tensor, attributions: Iterable[Attribution], channels: str | int) -> Axes:
    """Return the axes of an image `(*S)`, from its attributions or its shape."""
    check_channels(channels)
    if channels != "auto":
        return Axes(channels)
    for attribution in attributions:
        if "channels" in attribution.provenance:
            return attribution.axes
    if image.ndim < 2:
        return Axes()
    return Axes(of_shape(torch.Size((1, *image.shape))).channels)


def _as_image(values: Tensor, axes: Axes) -> Tensor:
    """Return an input or a map `(*S)` as an image `(C, H, W)`.

    A volume or clip `(C, D, H, W)` becomes its middle slice. A series `(C, L)` becomes an image of
    one channel with a row for each channel.

    Raises:
        UnilensError: the shape is that of no image, such as a row of a table.
    """
    first = axes.to_first(values, 0) if values.ndim > 1 else values
    if first.ndim == 2:
        return first.unsqueeze(0)
    if first.ndim == 4:
        return first[:, first.shape[1] // 2]
    if first.ndim != 3:
        raise UnilensError(
            f"expected an image (C, H, W), a series (C, L) or a volume (C, D, H, W) to show, got "
            f"{tuple(values.shape)}; print the attribution's values, or index them"
        )
    return first


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

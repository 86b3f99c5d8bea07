"""Inputs and maps of any order of axes as pictures `(C, H, W)`: bands, series and volumes."""

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
"""The three channels that are shown as red, green and blue."""


@dataclass(frozen=True, slots=True)
class View:
    """How an input and its maps are shown.

    Attributes:
        axes: where their channels are.
        bands: see `as_colours`.
        limits: of the input's values, shown as black and white; a series has its own.
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
        """Return how an image is shown; "auto" channels are what its attributions or shape say."""
        axes = display_axes(image, attributions, channels)
        series = axes.to_first(image, 0).ndim == 2
        limits = (float(image.min()), float(image.max())) if series else (0.0, 1.0)
        return cls(axes, bands, limits)

    @property
    def aspect(self) -> str:
        """A series fills the width; pixels are square."""
        return "equal" if self.limits == (0.0, 1.0) else "auto"

    def image(self, image: Tensor) -> Tensor:
        """Return an input or a baseline `(*S)` as colours `(1, H, W)` or `(3, H, W)` in [0, 1]."""
        low, high = self.limits
        picture = as_picture(image, self.axes).detach().cpu().float()
        scaled = (picture - low) / ((high - low) or 1.0)
        return as_colours(scaled.clamp(0, 1), self.bands)

    def values(self, values: Tensor) -> Tensor:
        """Return a map `(*S)` as `(C, H, W)`."""
        return as_picture(values, self.axes)


def display_axes(image: Tensor, attributions: Iterable[Attribution], channels: str | int) -> Axes:
    """Return where the channels of an image `(*S)` are, as far as it is known or seen."""
    check_channels(channels)
    if channels != "auto":
        return Axes(channels)
    for attribution in attributions:
        if "channels" in attribution.provenance:
            return attribution.axes
    if image.ndim < 2:
        return Axes()
    return Axes(of_shape(torch.Size((1, *image.shape))).channels)


def as_picture(values: Tensor, axes: Axes) -> Tensor:
    """Return an input or a map `(*S)` as a picture `(C, H, W)`.

    Of a volume or clip it is the middle slice along the first side. A series `(C, L)` is a picture
    of one channel with a row for each of its channels.

    Raises:
        UnilensError: it has no picture, as a row of a table.
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


def as_colours(picture: Tensor, bands: Bands | None = None) -> Tensor:
    """Return a picture `(C, H, W)` as grey `(1, H, W)` or as red, green and blue `(3, H, W)`.

    Args:
        picture: of any number of channels.
        bands: which three are red, green and blue; None for the three there are, else the mean of
            all, in grey.
    """
    count = len(picture)
    if bands is not None:
        several = isinstance(bands, (tuple, list)) and len(bands) == 3
        require(
            several and all(type(band) is int and 0 <= band < count for band in bands),
            f"expected bands to be three numbers of channels from 0 to {count - 1}, got {bands!r}",
        )
        return picture[list(bands)]
    return picture if count in (1, 3) else picture.mean(0, keepdim=True)

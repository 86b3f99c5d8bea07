"""Figures: panels and comparisons of the maps of one input, whatever its kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from torch import Tensor

from .._validation.settings import check_count, check_text
from ..attribution import Attribution
from . import bars, images, series, slices, words
from .colours import (
    STYLES,
    Array,
    colour_scale,
    coloured,
    data_uri,
    flatten,
    heatmap,
    overlay,
    pixels,
)
from .figures import Drawing
from .views import Bands

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "STYLES",
    "Array",
    "colour_scale",
    "coloured",
    "comparison",
    "data_uri",
    "flatten",
    "heatmap",
    "overlay",
    "panel",
    "pixels",
]

_KINDS = {"row": bars, "series": series, "image": images, "volume": slices, "clip": slices}


def panel(
    image: Tensor | str,
    attributions: Mapping[str, Attribution] | Mapping[str, words.TextMap],
    *,
    title: str = "",
    style: str = "signed",
    index: int = 0,
    bands: Bands | None = None,
    channels: str | int = "auto",
    kind: str = "auto",
    names: Sequence[str] | None = None,
    spacing: Sequence[float] | None = None,
) -> Figure:
    """Draw the maps of one input, a row or block for each method, with the path beside it.

    Images: image, baseline, heatmap and overlay. Series `(C, T)`: a line for each channel over its
    map in colour, for the eight channels with the largest attribution. Volumes `(C, D, H, W)`:
    three slices through the strongest voxel. Clips: the strongest and evenly spaced frames. Rows
    `(F,)`: bars of the strongest columns. Outputs without probabilities have the score along the
    path in place of the confidence. Texts: words in colours.

    Args:
        image: the input `(*S)` without its batch, in the order of axes in which it was explained;
            images in [0, 1]. Of texts the text.
        attributions: maps by the name that is shown; of texts what `unilens.text.explain_text`
            returns.
        title: title of the figure.
        style: one of `STYLES`; one colour scale for each method.
        index: index of the input in the attributions.
        bands: the three channels that are red, green and blue; None for all of three, or the mean
            of any other number, in grey.
        channels: axis of the channels, "first", "last", "none" or a number; "auto" to take it from
            the attributions or the shape.
        kind: "volume" or "clip" of inputs with three axes beside the channels; "auto" is a clip
            where there are three channels, or channels between the axes of time and space.
        names: of all columns of a row, or of all channels of a series.
        spacing: lengths of a volume's voxels along its three axes, as `Volume.spacing`.

    Raises:
        UnilensError: the input is not the one explained, or of no kind that can be drawn.
    """
    check_text("title", title)
    if isinstance(image, str):
        return words.panel(image, cast(Mapping[str, words.TextMap], attributions), title, style)
    maps = cast(Mapping[str, Attribution], attributions)
    drawing = Drawing.of(image, maps, style, index, bands, channels, kind, names, spacing)
    return _KINDS[drawing.view.kind].panel(drawing, title)


def comparison(
    image: Tensor | str,
    attributions: Mapping[str, Attribution] | Mapping[str, words.TextMap],
    *,
    title: str = "",
    style: str = "signed",
    index: int = 0,
    columns: int = 8,
    bands: Bands | None = None,
    channels: str | int = "auto",
    kind: str = "auto",
    names: Sequence[str] | None = None,
    spacing: Sequence[float] | None = None,
) -> Figure:
    """Draw the maps of one input beside each other, without the path.

    Images: one column per method after that of the image, the heatmap above the overlay. Volumes
    and clips: a block for each method, all at the same slices. Series, rows and texts: as in
    `panel`.

    Args:
        image: see `panel`.
        attributions: maps by the name that is shown.
        title: title of the figure.
        style: one of `STYLES`; each map on its own colour scale.
        index: index of the input in the attributions.
        columns: number of pictures beside each other before the next row begins.
        bands: see `panel`.
        channels: see `panel`.
        kind: see `panel`.
        names: see `panel`.
        spacing: see `panel`.
    """
    check_count("columns", columns)
    check_text("title", title)
    if isinstance(image, str):
        return panel(image, attributions, title=title, style=style)
    maps = cast(Mapping[str, Attribution], attributions)
    drawing = Drawing.of(image, maps, style, index, bands, channels, kind, names, spacing)
    return _KINDS[drawing.view.kind].comparison(drawing, title, columns)

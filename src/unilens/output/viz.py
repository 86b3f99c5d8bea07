"""Figures: heatmaps, overlays, and panels that show several methods side by side."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy
from PIL import Image
from torch import Tensor

from ..attribution import Attribution
from ..errors import UnknownNameError, require
from ..outputs import OutputSpec
from .levels import lines
from .text import printable
from .views import Bands, View, as_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = numpy.ndarray[Any, Any]

STYLES = ("signed", "unsigned", "green")
"""signed: orange for, purple against the target; unsigned: how much; green: as in the paper."""

_QUANTILE = 0.995
_GREY = "#666666"
_CHARACTERS_PER_INCH = 14
"""Of the verdict below a map, in its font of 8 points."""


def heatmap(values: Tensor, style: str = "signed") -> Array:
    """Return one map as colours, scaled by its own 99.5 % quantile.

    Args:
        values: `(C, H, W)`, signed; channels are summed.
        style: one of `STYLES`.

    Returns:
        `(H, W, 3)`, in [0, 1]. A map of zeros is the colour of zero; values that are not finite
        count as zero.
    """
    flat = flatten(values, style)
    return coloured(flat, colour_scale(flat), style)


def coloured(flat: Array, scale: float, style: str = "signed") -> Array:
    """Return a map `(H, W)` as colours `(H, W, 3)`; `scale` is the value of full colour."""
    if style == "signed":
        return _colour_map("PuOr_r", 0.5 + 0.5 * flat / scale)
    if style == "unsigned":
        return _colour_map("magma", flat / scale)
    green: Array = numpy.zeros((*flat.shape, 3))
    green[..., 1] = (flat / scale).clip(0, 1)
    return green


def overlay(image: Tensor, values: Tensor, style: str = "signed", opacity: float = 0.85) -> Array:
    """Return a map over the grey image `(C, H, W)`, opaque where it is strong; `(H, W, 3)`."""
    grey = pixels(image).mean(-1, keepdims=True).repeat(3, axis=-1)
    flat = flatten(values, style)
    strength = (numpy.abs(flat) / colour_scale(flat)).clip(0, 1)[..., None] * opacity
    mixed: Array = (1 - strength) * grey + strength * heatmap(values, style)
    return mixed


def flatten(values: Tensor, style: str) -> Array:
    """Return the sum of a map `(C, H, W)` over channels; unless signed, of absolute values."""
    if style not in STYLES:
        raise UnknownNameError("style", style, STYLES)
    require(values.ndim == 3, f"expected a map of shape (C, H, W), got {tuple(values.shape)}")
    clean = values.detach().cpu().double().nan_to_num(0, 0, 0)
    summed = clean.sum(0) if style == "signed" else clean.abs().sum(0)
    array: Array = summed.numpy()
    return array


def colour_scale(flat: Array) -> float:
    """Return the value of full colour: the 99.5 % quantile of the absolute values."""
    strength = numpy.abs(flat)
    return float(numpy.quantile(strength, _QUANTILE) or strength.max() or 1.0)


def pixels(image: Tensor, bands: Bands | None = None) -> Array:
    """Return an image `(C, H, W)` as `(H, W, 3)`, clipped to [0, 1]; see `views.as_rgb`."""
    rgb = as_rgb(image.detach().cpu().float().clamp(0, 1), bands)
    array: Array = rgb.permute(1, 2, 0).numpy()
    return array.repeat(3, axis=-1) if array.shape[-1] == 1 else array


def panel(
    image: Tensor,
    attributions: Mapping[str, Attribution],
    *,
    title: str = "",
    style: str = "signed",
    index: int = 0,
    bands: Bands | None = None,
    channels: str | int = "auto",
) -> Figure:
    """Draw one row per method: image, baseline, heatmap, overlay, confidence along the path.

    Outputs without probabilities have the score in place of the confidence. Volumes and clips
    `(C, D, H, W)` are shown by their middle slice, series `(C, L)` by a row for each channel.

    Args:
        image: `(C, H, W)`, in [0, 1], in the order of axes in which it was explained.
        attributions: maps by the name that is shown.
        title: title of the figure.
        style: one of `STYLES`; one colour scale for each row.
        index: index of the input in the attributions.
        bands: the three channels that are red, green and blue; None for all of three, or the mean
            of any other number, in grey.
        channels: axis of the channels, "first", "last" or "none"; "auto" to take it from the
            attributions or the shape.
    """
    view = View.of(image, attributions.values(), bands, channels)
    rows = len(attributions)
    figure = _new_figure(15, 3.1 * rows + 0.75, title)
    grid = figure.subplots(rows, 5, squeeze=False)
    for axes, (name, attribution) in zip(grid, attributions.items(), strict=True):
        _draw_row(axes, view, image, name, attribution, style, index)
    measure = "confidence" if all(map(_has_probabilities, attributions.values())) else "score"
    headings = ("image", "baseline", "heatmap", "overlay", f"{measure} on the path")
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=11)
    return figure


def comparison(
    image: Tensor,
    attributions: Mapping[str, Attribution],
    *,
    title: str = "",
    style: str = "signed",
    index: int = 0,
    columns: int = 8,
    bands: Bands | None = None,
    channels: str | int = "auto",
) -> Figure:
    """Draw one column per method after that of the image: the heatmap above the overlay.

    Args:
        image: `(C, H, W)`, in [0, 1].
        attributions: maps by the name that is shown.
        title: title of the figure.
        style: one of `STYLES`; each map on its own colour scale.
        index: index of the input in the attributions.
        columns: number of columns before the next row begins.
        bands: see `panel`.
        channels: see `panel`.
    """
    view, names = View.of(image, attributions.values(), bands, channels), list(attributions)
    blocks = -(-(len(names) + 1) // columns)
    verdicts = [_verdict(attribution, index, 2.1) for attribution in attributions.values()]
    n_lines = max(text.count("\n") + 1 for text, _ in verdicts)
    figure = _new_figure(2.1 * columns, (4.6 + 0.18 * n_lines) * blocks + 0.7, title)
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    grid[0, 0].imshow(pixels(view.image(image)), aspect=view.aspect)
    grid[0, 0].set_title("image", fontsize=11)
    for position, name in enumerate(names, start=1):
        block, column = divmod(position, columns)
        values = view.values(attributions[name].values[index])
        above, below = grid[2 * block : 2 * block + 2, column]
        above.imshow(heatmap(values, style), aspect=view.aspect)
        above.set_title(name, fontsize=11, parse_math=False, wrap=True)
        below.imshow(overlay(view.image(image), values, style), aspect=view.aspect)
        text, font = verdicts[position - 1]
        below.set_anchor("N")
        below.text(0.5, -0.03, text, ha="center", va="top", transform=below.transAxes, **font)
    return figure


def _new_figure(width: float, height: float, title: str) -> Figure:
    """Return an empty white figure of this size in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    if title:
        figure.suptitle(printable(title), fontsize=15, parse_math=False)
    return figure


def _draw_row(
    axes: Any,
    view: View,
    image: Tensor,
    name: str,
    attribution: Attribution,
    style: str,
    index: int,
) -> None:
    for ax in axes[:4]:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
    axes[0].imshow(pixels(view.image(image)), aspect=view.aspect)
    axes[0].set_ylabel(name, fontsize=13, parse_math=False)
    values = view.values(attribution.values[index])
    if attribution.baseline is None:
        _write_centred(axes[1], "no baseline")
    else:
        baseline = attribution.baseline[index]
        axes[1].imshow(pixels(view.image(baseline)), aspect=view.aspect)
        largest = float((baseline - image.to(baseline)).abs().max())
        distance = float((baseline - image.to(baseline)).double().norm())
        axes[1].set_xlabel(
            f"distance {distance:.3g}, largest change {largest:.2g}", fontsize=8, color=_GREY
        )
    scale = colour_scale(flatten(values, style))
    axes[2].imshow(heatmap(values, style), aspect=view.aspect)
    axes[2].set_xlabel(_legend(style, scale), fontsize=8, color=_GREY)
    axes[3].imshow(overlay(view.image(image), values, style), aspect=view.aspect)
    text, font = _verdict(attribution, index, 2.8)
    axes[3].set_xlabel(text, **font)
    _draw_path(axes[4], attribution, index)


def _verdict(attribution: Attribution, index: int, width: float) -> tuple[str, dict[str, Any]]:
    """Return the verdict on a map in lines of this width in inches, with its font and colour."""
    line = lines(attribution, index)[0]
    text = fill(str(line), int(width * _CHARACTERS_PER_INCH))
    return text, {"fontsize": 8, "color": line.style.colour, "parse_math": False}


def _legend(style: str, scale: float) -> str:
    if style == "signed":
        return f"orange: for, purple: against; full colour {scale:.2g}"
    return f"full colour {scale:.2g}"


def _draw_path(ax: Axes, attribution: Attribution, index: int) -> None:
    trace = attribution.trace
    if trace is None:
        _write_centred(ax, "no path")
        return
    fraction = trace.fraction[:, index].cpu().numpy()
    confidence = trace.confidence[:, index].cpu().numpy()
    ax.plot(fraction, confidence, color="#1f5fa8", marker="o", markersize=3)
    ax.set_xlim(-0.03, 1.03)
    if _has_probabilities(attribution):
        ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("baseline → image", fontsize=9)
    if attribution.complete:
        gap = float(attribution.completeness_gap[index])
        ax.text(0.03, 0.96, f"gap {gap:+z.4f}", transform=ax.transAxes, va="top", fontsize=9)
    ax.grid(alpha=0.3)


def _has_probabilities(attribution: Attribution) -> bool:
    return OutputSpec.of(attribution.provenance).has_probabilities


def data_uri(values: Array, kind: str = "png", **options: Any) -> str:
    """Return colours `(H, W, 3)` or, with opacity, `(H, W, 4)`, in [0, 1], as the URI of an image.

    Args:
        values: the colours.
        kind: "png" or "webp".
        **options: settings of pillow's encoder.
    """
    buffer = io.BytesIO()
    levels = (values * 255).round().clip(0, 255).astype(numpy.uint8)
    Image.fromarray(levels).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _write_centred(ax: Axes, text: str) -> None:
    ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes, color=_GREY)
    ax.set_axis_off()


def _colour_map(name: str, values: Array) -> Array:
    """Return values in [0, 1] in the colours of one of matplotlib's maps, `(..., 3)`."""
    from matplotlib import colormaps

    colours: Array = numpy.asarray(colormaps[name](values.clip(0, 1)))[..., :3]
    return colours

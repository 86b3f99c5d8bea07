"""Maps and inputs as colours: heatmaps, overlays, and images as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor

from ..baselines.blur import blurred
from ..errors import UnknownNameError, require
from .views import Bands, as_rgb

Array = numpy.ndarray[Any, Any]

STYLES = ("signed", "unsigned", "green")
"""signed: orange for, purple against the target; unsigned: how much; green: as in the paper."""

_QUANTILE = 0.995
_SMOOTHING = 0.02
"""Standard deviation of the gaussian under an overlay, in shorter sides of the image."""
_STRONGEST = 0.9
"""Quantile of the smoothed map above which it is outlined."""
_OPACITY = 0.8
_PALE, _FADED = 0.35, 0.25
"""How far the photograph under a map is mixed with grey, then with white."""
_LIGHT, _DARK = 1.0, 0.1
"""The greys of the outline's lines."""
_INK_FOR, _INK_AGAINST = (0.93, 0.48, 0.0), (0.42, 0.24, 0.69)
"""The ends of the colour map of signed maps, brighter to stand out from photographs."""


class Levels(NamedTuple):
    """How strong a smoothed map is.

    Attributes:
        full: the value of full colour.
        strongest: the value from which a position is among the strongest tenth.
    """

    full: float
    strongest: float

    @classmethod
    def of(cls, smoothed: Iterable[Array]) -> Levels:
        """Return the levels of one map, or of all planes of a map together."""
        strength = numpy.abs(numpy.concatenate([flat.ravel() for flat in smoothed]))
        return cls(colour_scale(strength), float(numpy.quantile(strength, _STRONGEST)))


def heatmap(
    values: Tensor, style: str = "signed", scale: float | None = None, origin: float = 0.0
) -> Array:
    """Return one map as colours.

    Args:
        values: `(C, H, W)`, signed; channels are summed.
        style: one of `STYLES`.
        scale: the value of full colour, from the origin; None for the map's own 99.5 % quantile.
        origin: the value without colour.

    Returns:
        `(H, W, 3)`, in [0, 1]. A map of zeros is the colour of zero; values that are not finite
        count as zero.
    """
    flat = flatten(values, style) - origin
    return coloured(flat, scale or colour_scale(flat), style)


def coloured(flat: Array, scale: float, style: str = "signed") -> Array:
    """Return a map `(H, W)` as colours `(H, W, 3)`; `scale` is the value of full colour."""
    if style == "signed":
        return _colour_map("PuOr_r", 0.5 + 0.5 * flat / scale)
    if style == "unsigned":
        return _colour_map("magma", flat / scale)
    green: Array = numpy.zeros((*flat.shape, 3))
    green[..., 1] = (flat / scale).clip(0, 1)
    return green


def overlay(
    image: Tensor,
    values: Tensor,
    style: str = "signed",
    *,
    levels: Levels | None = None,
    origin: float = 0.0,
    zoom: int = 1,
) -> Array:
    """Return a map, smoothed for the eye, over the photograph in its colours.

    The photograph is visible where the map is weak; the strongest tenth of the smoothed map has an
    outline. `heatmap` shows the map as it is.

    Args:
        image: `(C, H, W)` in [0, 1].
        values: `(C, H, W)`, signed; channels are summed.
        style: one of `STYLES`.
        levels: of the smoothed map; None for its own.
        origin: the value without colour.
        zoom: pixels of the result along each side of a pixel of the image.

    Returns:
        `(zoom * H, zoom * W, 3)`, in [0, 1].
    """
    flat = smoothed(values, style, origin)
    levels = levels or Levels.of([flat])
    fine = _enlarged(flat, zoom)
    colours = pixels(image).repeat(zoom, axis=0).repeat(zoom, axis=1)
    pale = colours + _PALE * (colours.mean(-1, keepdims=True) - colours)
    mixed = laid_over(pale + _FADED * (1 - pale), fine, levels.full, style)
    light, dark = _outline(numpy.abs(fine), levels.strongest, min(zoom, 2))
    mixed[light], mixed[dark] = _LIGHT, _DARK
    return mixed


def overlay_layer(values: Tensor) -> Array:
    """Return what `overlay` draws over a photograph, alone, for a signed map `(C, H, W)`.

    Returns:
        `(H, W, 4)`, in [0, 1], the last channel the opacity.
    """
    flat = smoothed(values)
    levels = Levels.of([flat])
    ink = numpy.where(flat[..., None] > 0, _INK_FOR, _INK_AGAINST)
    layer = numpy.concatenate([ink, _strength(flat, levels.full)], axis=-1)
    light, dark = _outline(numpy.abs(flat), levels.strongest, 1)
    layer[light], layer[dark] = (*[_LIGHT] * 3, 1.0), (*[_DARK] * 3, 1.0)
    return layer


def laid_over(colours: Array, flat: Array, full: float, style: str = "signed") -> Array:
    """Return colours `(H, W, 3)` under a map `(H, W)` that is opaque where it is strong."""
    ink = coloured(flat, full, style)
    if style == "signed":
        ink = numpy.where(flat[..., None] > 0, _INK_FOR, _INK_AGAINST)
    strength = _strength(flat, full)
    mixed: Array = (1 - strength) * colours + strength * ink
    return mixed


def smoothed(values: Tensor, style: str = "signed", origin: float = 0.0) -> Array:
    """Return a map `(C, H, W)` as an overlay shows it: summed and smoothed, `(H, W)`."""
    flat = flatten(values, style) - origin
    sigma = _SMOOTHING * min(flat.shape)
    soft: Array = blurred(torch.from_numpy(flat)[None, None], sigma)[0, 0].numpy()
    return soft


def _enlarged(flat: Array, zoom: int) -> Array:
    """Return a map `(H, W)` with `zoom` times as many pixels along each side, interpolated."""
    given = torch.from_numpy(flat)[None, None]
    fine = torch.nn.functional.interpolate(given, scale_factor=zoom, mode="bilinear")
    enlarged: Array = fine[0, 0].numpy()
    return enlarged


def _strength(flat: Array, full: float) -> Array:
    """Return the opacity `(H, W, 1)` of a map's ink."""
    opacity: Array = (numpy.abs(flat) / full).clip(0, 1)[..., None] * _OPACITY
    return opacity


def _outline(strength: Array, least: float, width: int) -> tuple[Array, Array]:
    """Return masks of a light line of this width around strong places, and of a dark one."""
    inside = (strength >= least) & (strength > strength.min())
    inner = inside
    for _ in range(width):
        inner = numpy.logical_and.reduce(_neighbours(inner))
    return inside & ~inner, ~inside & numpy.logical_or.reduce(_neighbours(inside))


def _neighbours(mask: Array) -> list[Array]:
    """Return a mask `(H, W)`, moved by nothing and by one pixel to each side."""
    wide = numpy.pad(mask, 1, mode="edge")
    moved = (wide[1:-1, :-2], wide[1:-1, 2:], wide[:-2, 1:-1], wide[2:, 1:-1])
    return [mask, *moved]


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
    rgb = as_rgb(image.detach().cpu().float().nan_to_num().clamp(0, 1), bands)
    array: Array = rgb.permute(1, 2, 0).numpy()
    return array.repeat(3, axis=-1) if array.shape[-1] == 1 else array


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


def _colour_map(name: str, values: Array) -> Array:
    """Return values in [0, 1] in the colours of one of matplotlib's maps, `(..., 3)`."""
    from matplotlib import colormaps

    colours: Array = numpy.asarray(colormaps[name](values.clip(0, 1)))[..., :3]
    return colours

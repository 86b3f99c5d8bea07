"""Maps and inputs as colours: heatmaps, overlays, and images as data URIs."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy
from PIL import Image
from torch import Tensor

from ..errors import UnknownNameError, require
from .views import Bands, as_rgb

Array = numpy.ndarray[Any, Any]

STYLES = ("signed", "unsigned", "green")
"""signed: orange for, purple against the target; unsigned: how much; green: as in the paper."""

_QUANTILE = 0.995


def heatmap(values: Tensor, style: str = "signed", scale: float | None = None) -> Array:
    """Return one map as colours.

    Args:
        values: `(C, H, W)`, signed; channels are summed.
        style: one of `STYLES`.
        scale: the value of full colour; None for the map's own 99.5 % quantile.

    Returns:
        `(H, W, 3)`, in [0, 1]. A map of zeros is the colour of zero; values that are not finite
        count as zero.
    """
    flat = flatten(values, style)
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
    opacity: float = 0.85,
    scale: float | None = None,
) -> Array:
    """Return a map over the grey image `(C, H, W)`, opaque where it is strong; `(H, W, 3)`."""
    grey = pixels(image).mean(-1, keepdims=True).repeat(3, axis=-1)
    flat = flatten(values, style)
    scale = scale or colour_scale(flat)
    strength = (numpy.abs(flat) / scale).clip(0, 1)[..., None] * opacity
    mixed: Array = (1 - strength) * grey + strength * coloured(flat, scale, style)
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

"""Maps and photographs as data URIs; maps that are compared share one colour scale."""

from __future__ import annotations

from collections.abc import Iterable

import numpy
from torch import Tensor

from ..attribution import Attribution
from ..output.viz import Array, colour_scale, coloured, data_uri, flatten, pixels


def common_scale(attributions: Iterable[Attribution]) -> float:
    """Return the value of full colour for maps in units of the score."""
    scales = (
        colour_scale(flatten(attribution.values[0], "signed")) for attribution in attributions
    )
    return max(scales, default=1.0)


def photograph_uri(image: Tensor) -> str:
    """Return an image `(3, H, W)`, clipped to [0, 1]."""
    return _uri(pixels(image))


def heatmap_uri(values: Tensor, scale: float, sign: int = 0) -> str:
    """Return a map `(3, H, W)` in colours: orange for the class, purple against it.

    Args:
        values: the map.
        scale: the value of full colour.
        sign: 1 for values for the class only, -1 for those against it, 0 for both.
    """
    flat = flatten(values, "signed")
    if sign:
        flat = sign * (sign * flat).clip(0)
    return _uri(coloured(flat, scale))


def overlay_uri(values: Tensor, scale: float) -> str:
    """Return a map that is drawn over a photograph: transparent where it is weak."""
    flat = flatten(values, "signed")
    opacity = (numpy.abs(flat) / scale).clip(0, 1)[..., None]
    return _uri(numpy.concatenate([coloured(flat, scale), opacity], axis=-1))


def _uri(values: Array) -> str:
    return data_uri(values, "webp", quality=82, method=2)

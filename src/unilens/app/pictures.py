"""Pictures of maps as data URIs: all of one row on one colour scale."""

from __future__ import annotations

from collections.abc import Iterable

import numpy
from torch import Tensor

from ..attribution import Attribution
from ..output.viz import Array, colour_scale, coloured, data_uri, flatten, pixels


def common_scale(attributions: Iterable[Attribution]) -> float:
    """Return the value that gets the full colour in maps that are in units of the score."""
    scales = [colour_scale(flatten(one.values[0], "signed")) for one in attributions]
    return max(scales, default=1.0)


def photograph_uri(image: Tensor) -> str:
    """Return an image `(3, H, W)` in [0, 1]; what lies outside is clipped."""
    return _uri(pixels(image))


def heatmap_uri(values: Tensor, scale: float, keep: int = 0) -> str:
    """Return a map `(3, H, W)` in colours: orange for, purple against.

    Args:
        values: the map.
        scale: the value that gets the full colour.
        keep: 1 for what counts for the class alone, -1 for what counts against it, 0 for both.
    """
    flat = flatten(values, "signed")
    if keep:
        flat = keep * (keep * flat).clip(0)
    return _uri(coloured(flat, scale))


def layer_uri(values: Tensor, scale: float) -> str:
    """Return a map that lies over a photograph: transparent where it is weak."""
    flat = flatten(values, "signed")
    strength = (numpy.abs(flat) / scale).clip(0, 1)[..., None]
    return _uri(numpy.concatenate([coloured(flat, scale), strength], axis=-1))


def _uri(values: Array) -> str:
    return data_uri(values, "webp", quality=82, method=2)

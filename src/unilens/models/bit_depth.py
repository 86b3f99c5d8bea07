"""Pixel values of any type as 8 bits: the values that become black and white."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy

from ..errors import UnilensError, UnilensWarning, require

Array = numpy.ndarray[Any, Any]

_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras and scanners put into a wider integer."""
_OVERSHOOT = 0.1
"""How far resampling may take floats out of [0, 1]; they are clipped."""
_REMEDY = (
    "say which values are black and white: value_range=(LOW, HIGH), or --range LOW,HIGH of "
    "explain and evaluate"
)


def to_uint8(values: Array, name: str, value_range: tuple[float, float] | None = None) -> Array:
    """Return pixel values scaled to 8 bits; values outside the range are clipped.

    The range is `value_range` where it is given. Otherwise 8-bit values and booleans keep theirs,
    other integers from 0 to 65535 are read over the fewest of 8, 10, 12, 14 or 16 bits that hold
    the largest of them, and floats over [0, 1], which they may overshoot by 0.1.

    Args:
        values: any shape; booleans, integers or floats in any byte order.
        name: of the picture, in messages.
        value_range: the values that are black and white.

    Raises:
        UnilensError: the values are of another type, not finite, or in none of these ranges.
    """
    kind = values.dtype.kind
    require(kind in "biuf", f"expected numbers as pixel values, got {values.dtype} in {name}")
    require(bool(values.size), f"expected pixels, got shape {values.shape} in {name}")
    if kind == "b":
        return values.astype(numpy.uint8) * numpy.uint8(255)
    if values.dtype == numpy.uint8 and value_range is None:
        return values
    pixels = values.astype(numpy.float64)
    require(
        bool(numpy.isfinite(pixels).all()),
        f"expected finite pixel values, got NaN or infinity in {name}; replace them first",
    )
    low, high = (
        _known_range(pixels, kind, name) if value_range is None else check_range(value_range)
    )
    scaled: Array = ((pixels - low) * (255 / (high - low))).clip(0, 255).round().astype(numpy.uint8)
    return scaled


def check_range(value_range: object) -> tuple[float, float]:
    """Return a range as two floats, or raise where it is none."""
    try:
        low, high = (float(value) for value in value_range)  # type: ignore[attr-defined]
    except (TypeError, ValueError, RuntimeError):
        low, high = 0.0, 0.0
    require(
        low < high and math.isfinite(high - low),
        f"expected value_range as two finite numbers (LOW, HIGH), LOW < HIGH, got {value_range!r}",
    )
    return low, high


def _known_range(values: Array, kind: str, name: str) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if kind == "f" and low >= -_OVERSHOOT and high <= 1 + _OVERSHOOT:
        if low < 0 or high > 1:
            _say(f"{name} has values from {low:.4g} to {high:.4g}: clipped to 0 to 1")
        return 0.0, 1.0
    if kind != "f" and low >= 0 and high < 2 ** _DEPTHS[-1]:
        bits = next(depth for depth in _DEPTHS if high < 2**depth)
        if bits < _DEPTHS[-1] and high:
            _say(f"the largest value of {name} is {high:.0f}: read over {bits} bits")
        return 0.0, 2.0**bits - 1
    expected = "floats from 0 to 1" if kind == "f" else "integers from 0 to 65535"
    raise UnilensError(f"expected {expected}, got {low:.6g} to {high:.6g} in {name}; {_REMEDY}")


def _say(fact: str) -> None:
    warnings.warn(f"{fact}; to change that, {_REMEDY}", UnilensWarning, stacklevel=2)


def warn_if_black_or_white(counts: list[int], name: str) -> None:
    """Warn where nearly all pixels are black or white: 99 % are below 16 or above 239 of 255.

    Args:
        counts: of the pixels of each of the 256 greys.
        name: of the picture, in the warning.
    """
    share = 0.99 * sum(counts)
    for shade, pixels in (("black", counts[:16]), ("white", counts[240:])):
        if sum(pixels) >= share:
            warnings.warn(
                f"{name} comes out nearly {shade}; if it should not, {_REMEDY}",
                UnilensWarning,
                stacklevel=2,
            )

"""Least-squares fits of measured costs: power laws and lines."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
from scipy import stats

from unilens.errors import require

LEVEL = 0.95
"""Coverage of the interval of a slope or exponent."""
_FEWEST = 3
"""Distinct points that a fit needs: two always lie on one."""
_PERCENTILE = (1 + LEVEL) / 2


@dataclass(frozen=True, slots=True)
class Fit:
    """A fit with two parameters, and its quality.

    Attributes:
        law: `power`, y = a x^b, or `line`, y = a + b x.
        a: the factor of a power law, the intercept of a line.
        b: the exponent, or the slope.
        low: the lower end of b's confidence interval.
        high: its upper end.
        r_squared: the share of the variance explained, of log y for a power law; None where y does
            not vary.
        worst: the largest residual, as a fraction of the measured value.
        n: number of points.
        first: the smallest x; smaller values are extrapolated.
        last: the largest x.
    """

    law: str
    a: float
    b: float
    low: float
    high: float
    r_squared: float | None
    worst: float
    n: int
    first: float
    last: float

    def at(self, x: float) -> float:
        """Return y.

        >>> round(power_law([1, 2, 4], [3, 12, 48]).at(8), 6)
        192.0
        """
        return self.a * x**self.b if self.law == "power" else self.a + self.b * x


def power_law(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Fit y = a x^b by least squares on logarithms.

    Raises:
        UnilensError: fewer than three different x, or something is not above zero.
    """
    _check(x)
    require(min(*x, *y) > 0, f"expected values above zero for a power law, got {min(*x, *y):g}")
    return _linear_fit("power", x, y, numpy.log)


def line(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Fit y = a + b x by least squares.

    Raises:
        UnilensError: fewer than three different x.
    """
    _check(x)
    return _linear_fit("line", x, y, lambda values: values)


def _check(x: Sequence[float]) -> None:
    require(
        len(set(x)) >= _FEWEST,
        f"expected at least {_FEWEST} different points to fit a law to, got {len(set(x))}",
    )


def _linear_fit(
    law: str, x: Sequence[float], y: Sequence[float], transform: Callable[[Any], Any]
) -> Fit:
    """Fit a straight line to the transformed values; a power law's start is its logarithm."""
    tx, ty = transform(numpy.asarray(x, float)), transform(numpy.asarray(y, float))
    result = stats.linregress(tx, ty)
    half = float(result.stderr) * float(stats.t.ppf(_PERCENTILE, len(tx) - 2))
    b = float(result.slope)
    start = float(result.intercept)
    varies = float(numpy.ptp(ty)) > 1e-12 * float(numpy.abs(ty).max())
    fit = Fit(
        law=law,
        a=math.exp(start) if law == "power" else start,
        b=b,
        low=b - half,
        high=b + half,
        r_squared=float(result.rvalue) ** 2 if varies else None,
        worst=0.0,
        n=len(x),
        first=min(x),
        last=max(x),
    )
    residuals = [abs(fit.at(a) - b) / abs(b) if b else 0.0 for a, b in zip(x, y, strict=True)]
    return replace(fit, worst=max(residuals))

"""Laws through measured costs: a power of the pixels, a line in steps and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
from scipy import stats

from ...errors import require

LEVEL = 0.95
"""Of the interval of a slope or exponent."""
_FEWEST = 3
"""Points through which a law is drawn: two lie on one whatever the truth."""
_PERCENTILE = (1 + LEVEL) / 2


@dataclass(frozen=True, slots=True)
class Fit:
    """A law with two numbers, and how well it describes what was measured.

    Attributes:
        law: `power`, y = a x^b, or `line`, y = a + b x.
        a: the factor of a power, the start of a line.
        b: the exponent, or the slope.
        low: of the interval of b.
        high: likewise.
        r_squared: the share of the variance that it explains: of log y for a power; None where
            y does not vary.
        worst: the largest residual, as a fraction of what was measured.
        n: points.
        first: the smallest x; what is beyond it is extrapolated.
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
    start, slope, low, high, explained = _straight(numpy.log(x), numpy.log(y))
    return _fit("power", float(numpy.exp(start)), slope, low, high, explained, x, y)


def line(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Fit y = a + b x by least squares.

    Raises:
        UnilensError: fewer than three different x.
    """
    _check(x)
    start, slope, low, high, explained = _straight(numpy.asarray(x, float), numpy.asarray(y, float))
    return _fit("line", start, slope, low, high, explained, x, y)


def _check(x: Sequence[float]) -> None:
    require(
        len(set(x)) >= _FEWEST,
        f"expected at least {_FEWEST} different points to fit a law to, got {len(set(x))}",
    )


def _straight(
    x: numpy.ndarray, y: numpy.ndarray
) -> tuple[float, float, float, float, float | None]:
    """Return start, slope, the slope's interval, and the share of the variance explained."""
    found = stats.linregress(x, y)
    half = float(found.stderr) * float(stats.t.ppf(_PERCENTILE, len(x) - 2))
    slope = float(found.slope)
    varies = float(numpy.ptp(y)) > 1e-12 * float(numpy.abs(y).max())
    explained = float(found.rvalue) ** 2 if varies else None
    return float(found.intercept), slope, slope - half, slope + half, explained


def _fit(
    law: str,
    a: float,
    b: float,
    low: float,
    high: float,
    explained: float | None,
    x: Sequence[float],
    y: Sequence[float],
) -> Fit:
    draft = Fit(law, a, b, low, high, explained, 0.0, len(x), min(x), max(x))
    worst = max(
        abs(draft.at(one) - seen) / abs(seen) if seen else 0.0
        for one, seen in zip(x, y, strict=True)
    )
    return Fit(law, a, b, low, high, explained, worst, len(x), min(x), max(x))

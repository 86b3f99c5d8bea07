"""The critical-difference diagram of ranks, in pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .charts import Axis
from .ranks import Ranking

_ROW = 18
"""Pixels between neighbouring labels."""
_BAR = 5
"""Pixels between neighbouring bars."""


@dataclass(frozen=True, slots=True)
class _RankMark:
    """A method on the scale.

    Attributes:
        label: the method.
        x: of its mean rank.
        label_y: of the label.
        left: whether the label is on the left.
        ours: whether the method is a UNI.
        tooltip: the numbers.
    """

    label: str
    x: float
    label_y: float
    left: bool
    ours: bool
    tooltip: str


@dataclass(frozen=True, slots=True)
class RankChart:
    """A critical-difference diagram: methods on a scale of mean ranks, and bars over groups.

    Attributes:
        width: in pixels.
        height: in pixels.
        x: the scale, 1 at the left.
        y: pixel of the scale.
        marks: the methods.
        bars: both ends and the height of a bar over methods that do not differ significantly.
        difference: ends of the critical difference, drawn above the scale.
        description: the text alternative.
    """

    width: float
    height: float
    x: Axis
    y: float
    marks: list[_RankMark]
    bars: list[tuple[float, float, float]]
    difference: tuple[float, float]
    description: str


def rank_diagram(ranked: Ranking, ours: Sequence[str]) -> RankChart:
    """Return the critical-difference diagram of a ranking."""
    means, groups = ranked.means, ranked.groups
    x, y = Axis(1, len(means), 250, 650, n_ticks=8), 40.0
    bars = [
        (x.at(means[first]) - 3, x.at(means[last]) + 3, y + 10 + _BAR * number)
        for number, (first, last) in enumerate(groups)
    ]
    top, half = y + 24 + _BAR * len(groups), (len(means) + 1) // 2
    marks = [
        _RankMark(
            method,
            x.at(mean),
            top + _ROW * (number if number < half else len(means) - 1 - number),
            number < half,
            method in ours,
            f"{method}: mean rank {mean:.2f}",
        )
        for number, (method, mean) in enumerate(zip(ranked.methods, means, strict=True))
    ]
    difference = x.at(1 + min(ranked.critical_difference, len(means) - 1))
    description = (
        f"Mean ranks of {len(means)} methods in {len(ranked.tables)} tables; the numbers are below."
    )
    height = top + _ROW * half + 4
    return RankChart(900, height, x, y, marks, bars, (x.first, difference), description)

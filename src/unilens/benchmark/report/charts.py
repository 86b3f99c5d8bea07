"""Where everything in a chart goes, in pixels: the template draws it, in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .cells import Cost, Curve
from .findings import Result
from .tables import number

_ROW = 18
_LABEL = 13
"""Pixels between labels that are beside one another."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to pixels, with round ticks.

    Attributes:
        low: the value at the first pixel.
        high: the value at the last.
        first: a pixel.
        last: a pixel; smaller than the first where values go up.
        log: whether equal ratios, not equal differences, are equally far apart.
        wanted: about how many ticks, where not log.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False
    wanted: int = 5

    def at(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, value = (
            (math.log10(self.low), math.log10(self.high), math.log10(value))
            if self.log
            else (self.low, self.high, value)
        )
        return round(self.first + (value - low) / (high - low) * (self.last - self.first), 1)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and texts of some round values."""
        low, high = self.low, self.high
        values = _log_ticks(low, high) if self.log else _ticks(low, high, self.wanted)
        return [(self.at(value), f"{value:g}".replace("-", "−")) for value in values]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point with its label, and where the label goes.

    Attributes:
        label: what it is called.
        x: of the point.
        y: of the point.
        label_y: of the label, in the margin.
        standing: as in `Result.standing`.
        ours: whether it is a UNI.
        told: the numbers, for a reader who points at it.
        low: of an interval, in pixels; None for none.
        high: likewise.
        line: points of a polyline, as SVG wants them.
    """

    label: str
    x: float
    y: float
    label_y: float
    standing: str
    ours: bool
    told: str
    low: float | None = None
    high: float | None = None
    line: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: axes and marks.

    Attributes:
        width: in pixels.
        height: in pixels.
        x: the horizontal axis.
        y: the vertical axis; None where rows have no scale.
        marks: what is shown.
        x_label: what the horizontal axis is.
        y_label: what the vertical axis is.
        told: what the chart shows, for those who do not see it.
    """

    width: float
    height: float
    x: Axis
    y: Axis | None
    marks: list[Mark]
    x_label: str
    y_label: str
    told: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One of many small charts: a curve with its band, before all others of its group."""

    label: str
    ours: bool
    told: str
    line: str
    band: str


@dataclass(frozen=True, slots=True)
class Panels:
    """Small charts with the same axes, one per method.

    Attributes:
        width: of each, in pixels.
        height: of each.
        x: the horizontal axis.
        y: the vertical axis.
        panels: one per method.
        lines: of all methods, which each panel shows behind its own.
    """

    width: float
    height: float
    x: Axis
    y: Axis
    panels: list[Panel] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def intervals(result: Result, ours: Sequence[str]) -> Chart | None:
    """Return the mean and interval of each method, best first; None without values."""
    ranked = result.ranked
    if not ranked:
        return None
    ends = [end for one in ranked for end in (one.low, one.high, one.mean) if end is not None]
    height = _ROW * len(ranked)
    x = _axis(ends, 190, 560)
    marks = [
        Mark(
            one.method,
            x.at(one.mean or 0.0),
            _ROW * (row + 0.5),
            _ROW * (row + 0.5),
            result.standing(one.method),
            one.method in ours,
            f"{one.method}: {number(one.mean)}, [{number(one.low)}, {number(one.high)}]",
            None if one.low is None else x.at(one.low),
            None if one.high is None else x.at(one.high),
        )
        for row, one in enumerate(ranked)
    ]
    told = f"Mean and interval of {len(ranked)} methods; the numbers are in the table."
    return Chart(575, height + 38, x, None, marks, f"mean {result.family.metric}", "", told)


def cost_against_quality(
    result: Result, costs: Mapping[str, Cost], ours: Sequence[str]
) -> Chart | None:
    """Return seconds per map against the mean; None where less than two methods have both."""
    known = [
        (one, costs[one.method].seconds or 0.0)
        for one in result.ranked
        if one.method in costs and (costs[one.method].seconds or 0) > 0
    ]
    if len(known) < 2:
        return None
    height = max(280, _LABEL * len(known) + 20)
    x = log_axis([seconds for _, seconds in known], 60, 400)
    y = _axis([one.mean or 0.0 for one, _ in known], height, 12)
    places = apart([y.at(one.mean or 0.0) for one, _ in known], _LABEL, 8, height)
    marks = [
        Mark(
            one.method,
            x.at(seconds),
            y.at(one.mean or 0.0),
            place,
            result.standing(one.method),
            one.method in ours,
            f"{one.method}: {number(one.mean)} at {number(seconds)} s",
        )
        for (one, seconds), place in zip(known, places, strict=True)
    ]
    told = f"Seconds per map against the mean, {len(known)} methods; the numbers are in the tables."
    metric = f"mean {result.family.metric}"
    return Chart(600, height + 45, x, y, marks, "seconds per map (log scale)", metric, told)


def steps(parts: Mapping[str, Mapping[int, float]], ours: Sequence[str]) -> Chart | None:
    """Return the similarity at each number of steps, one line per method; None without any.

    Args:
        parts: mean by number of steps, by method.
        ours: the methods that are UNI.
    """
    counts = sorted({count for means in parts.values() for count in means})
    if not counts:
        return None
    height = max(260, _LABEL * len(parts) + 20)
    x = log_axis([float(count) for count in counts], 60, 380)
    y = _axis([value for means in parts.values() for value in means.values()], height, 12)
    last = {method: y.at(means[max(means)]) for method, means in parts.items()}
    places = apart(list(last.values()), _LABEL, 8, height)
    marks = [
        Mark(
            method,
            x.at(float(max(means))),
            last[method],
            place,
            "level",
            method in ours,
            f"{method}: " + ", ".join(f"{means[n]:.3f} at {n}" for n in sorted(means)),
            line=polyline([(x.at(float(n)), y.at(means[n])) for n in sorted(means)]),
        )
        for (method, means), place in zip(parts.items(), places, strict=True)
    ]
    told = f"Similarity against the number of steps, {len(parts)} methods."
    return Chart(600, height + 45, x, y, marks, "steps (log scale)", "mean similarity", told)


def panels(curves: Sequence[Curve], ours: Sequence[str]) -> Panels:
    """Return the mean curves of one metric and model, one small chart per method."""
    seen = [end for one in curves for end in (*one.low, *one.high, *one.mean)]
    x = replace(_axis([end for one in curves for end in one.x], 34, 182, padded=False), wanted=2)
    y = replace(_axis(seen, 104, 8, padded=False), wanted=3)
    made = Panels(192, 122, x, y)
    for one in curves:
        points = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.mean, strict=True)]
        below = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.low, strict=True)]
        above = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.high, strict=True)]
        made.lines.append(polyline(points))
        band = polyline([*below, *reversed(above)])
        told = f"{one.method}: mean from {number(one.mean[0])} to {number(one.mean[-1])}"
        made.panels.append(Panel(one.method, one.method in ours, told, made.lines[-1], band))
    return made


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places close to those wanted, at least a gap apart where there is room.

    >>> apart([10, 11, 50], 5, 0, 100)
    [10, 15, 50]
    """
    order = sorted(range(len(wanted)), key=lambda one: wanted[one])
    places: dict[int, float] = {}
    floor = low
    for one in order:
        places[one] = max(wanted[one], floor)
        floor = places[one] + gap
    ceiling = high
    for one in reversed(order):
        places[one] = min(places[one], ceiling)
        ceiling = places[one] - gap
    return [places[one] for one in range(len(wanted))]


def polyline(points: Sequence[tuple[float, float]]) -> str:
    """Return points as SVG wants them."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _axis(values: Sequence[float], first: float, last: float, *, padded: bool = True) -> Axis:
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    margin = 0.05 * span if padded or high == low else 0.0
    return Axis(low - margin, high + margin, first, last)


def log_axis(values: Sequence[float], first: float, last: float) -> Axis:
    """Return an axis for ratios, a little longer than the values."""
    low, high = min(values), max(values)
    margin = max(1.05, (high / low) ** 0.06)
    return Axis(low / margin, high * margin, first, last, log=True)


def _ticks(low: float, high: float, wanted: int) -> list[float]:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(one * power for one in (1, 2, 5, 10) if one * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [digit * 10.0**power for power in powers for digit in digits]
        shown = [value for value in found if low <= value <= high]
        if len(shown) >= 3:
            break
    return shown or [low, high]

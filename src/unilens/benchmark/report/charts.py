"""The layout of charts in pixels; the template draws them in the page's own colours."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from .cells import MapCost, MeanCurve
from .findings import Result
from .tables import number

_ROW = 18
_LABEL = 13
"""Pixels between neighbouring labels."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to pixels, with round ticks.

    Attributes:
        low: the value at the first pixel.
        high: the value at the last.
        first: the pixel of `low`.
        last: the pixel of `high`; smaller than `first` on a vertical axis.
        log: whether the scale is logarithmic.
        n_ticks: their approximate number on a linear scale.
    """

    low: float
    high: float
    first: float
    last: float
    log: bool = False
    n_ticks: int = 5

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
        """Pixels and texts of round values."""
        low, high = self.low, self.high
        values = _log_ticks(low, high) if self.log else _ticks(low, high, self.n_ticks)
        return [(self.at(value), f"{value:g}".replace("-", "−")) for value in values]


@dataclass(frozen=True, slots=True)
class _Mark:
    """A point of a method with its label in the margin.

    Attributes:
        label: the method.
        x: of the point.
        y: of the point.
        label_y: of the label.
        standing: see `Result.standing`.
        ours: whether the method is a UNI.
        tooltip: the numbers.
        low: the lower end of an interval, or None.
        high: its upper end.
        line: points of an SVG _polyline.
    """

    label: str
    x: float
    y: float
    label_y: float
    standing: str
    ours: bool
    tooltip: str
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
        marks: the methods.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        description: the text alternative.
    """

    width: float
    height: float
    x: Axis
    y: Axis | None
    marks: list[_Mark]
    x_label: str
    y_label: str
    description: str


@dataclass(frozen=True, slots=True)
class _Panel:
    """A small chart: the curve and band of one method, in front of all other curves."""

    label: str
    ours: bool
    description: str
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
        lines: of all methods, the background of each panel.
    """

    width: float
    height: float
    x: Axis
    y: Axis
    panels: list[_Panel] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


def intervals(result: Result, ours: Sequence[str]) -> Chart | None:
    """Return the mean and interval of each method, the best first; None without values."""
    ranked = result.ranked
    if not ranked:
        return None
    ends = [end for s in ranked for end in (s.low, s.high, s.mean) if end is not None]
    height = _ROW * len(ranked)
    x = _axis(ends, 190, 560)
    marks = [
        _Mark(
            summary.method,
            x.at(summary.mean or 0.0),
            _ROW * (row + 0.5),
            _ROW * (row + 0.5),
            result.standing(summary.method),
            summary.method in ours,
            f"{summary.method}: {number(summary.mean)}, "
            f"[{number(summary.low)}, {number(summary.high)}]",
            None if summary.low is None else x.at(summary.low),
            None if summary.high is None else x.at(summary.high),
        )
        for row, summary in enumerate(ranked)
    ]
    description = f"Mean and interval of {len(ranked)} methods; the numbers are in the table."
    return Chart(575, height + 38, x, None, marks, f"mean {result.family.metric}", "", description)


def cost_against_quality(
    result: Result, costs: Mapping[str, MapCost], ours: Sequence[str]
) -> Chart | None:
    """Return seconds per map against the mean; None if fewer than two methods have both."""
    known = [
        (summary, costs[summary.method].seconds or 0.0)
        for summary in result.ranked
        if summary.method in costs and (costs[summary.method].seconds or 0) > 0
    ]
    if len(known) < 2:
        return None
    height = max(280, _LABEL * len(known) + 20)
    x = _log_axis([seconds for _, seconds in known], 60, 400)
    y = _axis([summary.mean or 0.0 for summary, _ in known], height, 12)
    label_ys = space_labels([y.at(summary.mean or 0.0) for summary, _ in known], _LABEL, 8, height)
    marks = [
        _Mark(
            summary.method,
            x.at(seconds),
            y.at(summary.mean or 0.0),
            label_y,
            result.standing(summary.method),
            summary.method in ours,
            f"{summary.method}: {number(summary.mean)} at {number(seconds)} s",
        )
        for (summary, seconds), label_y in zip(known, label_ys, strict=True)
    ]
    description = (
        f"Seconds per map against the mean, {len(known)} methods; the numbers are in the tables."
    )
    metric = f"mean {result.family.metric}"
    return Chart(600, height + 45, x, y, marks, "seconds per map (log scale)", metric, description)


def steps(parts: Mapping[str, Mapping[int, float]], ours: Sequence[str]) -> Chart | None:
    """Return the similarity by number of steps, a line per method; None without any.

    Args:
        parts: means by number of steps, by method.
        ours: the UNI methods.
    """
    counts = sorted({count for means in parts.values() for count in means})
    if not counts:
        return None
    height = max(260, _LABEL * len(parts) + 20)
    x = _log_axis([float(count) for count in counts], 60, 380)
    y = _axis([value for means in parts.values() for value in means.values()], height, 12)
    last = {method: y.at(means[max(means)]) for method, means in parts.items()}
    label_ys = space_labels(list(last.values()), _LABEL, 8, height)
    marks = [
        _Mark(
            method,
            x.at(float(max(means))),
            last[method],
            label_y,
            "level",
            method in ours,
            f"{method}: " + ", ".join(f"{means[n]:.3f} at {n}" for n in sorted(means)),
            line=_polyline([(x.at(float(n)), y.at(means[n])) for n in sorted(means)]),
        )
        for (method, means), label_y in zip(parts.items(), label_ys, strict=True)
    ]
    description = f"Similarity against the number of steps, {len(parts)} methods."
    return Chart(600, height + 45, x, y, marks, "steps (log scale)", "mean similarity", description)


def panels(curves: Sequence[MeanCurve], ours: Sequence[str]) -> Panels:
    """Return the mean curves of one metric and model, a small chart per method."""
    ends = [end for curve in curves for end in (*curve.low, *curve.high, *curve.mean)]
    x = replace(_axis([x for curve in curves for x in curve.x], 34, 182, padded=False), n_ticks=2)
    y = replace(_axis(ends, 104, 8, padded=False), n_ticks=3)
    group = Panels(192, 122, x, y)
    for curve in curves:
        points = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.mean, strict=True)]
        below = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.low, strict=True)]
        above = [(x.at(a), y.at(b)) for a, b in zip(curve.x, curve.high, strict=True)]
        group.lines.append(_polyline(points))
        band = _polyline([*below, *reversed(above)])
        description = (
            f"{curve.method}: mean from {number(curve.mean[0])} to {number(curve.mean[-1])}"
        )
        group.panels.append(
            _Panel(curve.method, curve.method in ours, description, group.lines[-1], band)
        )
    return group


def space_labels(targets: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return positions close to the targets, at least a gap apart where there is room.

    >>> space_labels([10, 11, 50], 5, 0, 100)
    [10, 15, 50]
    """
    order = sorted(range(len(targets)), key=lambda index: targets[index])
    positions: dict[int, float] = {}
    floor = low
    for index in order:
        positions[index] = max(targets[index], floor)
        floor = positions[index] + gap
    ceiling = high
    for index in reversed(order):
        positions[index] = min(positions[index], ceiling)
        ceiling = positions[index] - gap
    return [positions[index] for index in range(len(targets))]


def _polyline(points: Sequence[tuple[float, float]]) -> str:
    """Return the points of an SVG _polyline."""
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _axis(values: Sequence[float], first: float, last: float, *, padded: bool = True) -> Axis:
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    margin = 0.05 * span if padded or high == low else 0.0
    return Axis(low - margin, high + margin, first, last)


def _log_axis(values: Sequence[float], first: float, last: float) -> Axis:
    """Return a logarithmic axis, a little longer than the values."""
    low, high = min(values), max(values)
    margin = max(1.05, (high / low) ** 0.06)
    return Axis(low / margin, high * margin, first, last, log=True)


def _ticks(low: float, high: float, count: int) -> list[float]:
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        values = [digit * 10.0**power for power in powers for digit in digits]
        inside = [value for value in values if low <= value <= high]
        if len(inside) >= 3:
            break
    return inside or [low, high]

"""Pictures of explained tables: bars and a waterfall of one row, a beeswarm of all rows."""

from __future__ import annotations

import re
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy

from .._validation.arrays import Array, as_number, is_missing
from .._validation.settings import check_count, check_text
from ..errors import require
from ..output.figures import new_figure
from ..output.levels import lines
from ..output.text import drawable, one_line
from .attribution import Contribution, TableAttribution

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FOR, AGAINST = "#d9760a", "#6f5fa8"
"""Orange and purple, as in the maps of images."""
_GREY = "#666666"
_LABEL = 36
"""Characters of a line of a label."""
_MOST_LINES = 3
_BREAK = "\u200b"
_WIDTH = 8.5
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9}
_LINE, _GAP = 0.17, 0.14
"""Inches of a line of a label, and between two labels."""


def waterfall(
    result: TableAttribution, row: int = 0, n_columns: int = 10, *, title: str = ""
) -> Figure:
    """Draw how the columns of one row lead from the base to the score.

    Args:
        result: of `unilens.tables.explain`, by a method with a base.
        row: its number.
        n_columns: the most important ones, in order; all others are one bar.
        title: the name of the row; by default "Row" and its number.

    Raises:
        UnilensError: there is no such row, or the method has no base to start from.
    """
    parts = row_parts(result, row, n_columns)
    base, score = float(result.base[row]), float(result.score[row])
    require(
        base == base and result.attribution.complete,
        f"expected values that lead from a base to the score, got those of "
        f"{result.provenance.get('method')}; draw them with bars",
    )
    ends = base + numpy.cumsum([part.value for part in parts])
    starts = numpy.concatenate([[base], ends[:-1]])
    figure, ax = _axes(result, row, [_label(part) for part in parts], title)
    _draw_bars(ax, starts, ends)
    for place, end in enumerate(ends[:-1]):
        ax.plot([end, end], [place - 0.4, place + 1.4], color=_GREY, linewidth=0.6)
    for value, text, height in ((base, "base", -0.85), (score, "score", len(parts) - 0.15)):
        ax.axvline(value, color=_GREY, linewidth=0.8, linestyle=":", zorder=0)
        paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
        ax.text(value, height, f"{text} {value:.3g}", **_CENTRED, bbox=paper)
    ax.set_ylim(len(parts) + 0.25, -1.25)
    return figure


def bars(result: TableAttribution, row: int = 0, n_columns: int = 10, *, title: str = "") -> Figure:
    """Draw the values of the most important columns of one row; see `waterfall`."""
    parts = row_parts(result, row, n_columns)
    figure, ax = _axes(result, row, [_label(part) for part in parts], title)
    values = numpy.array([part.value for part in parts])
    _draw_bars(ax, numpy.zeros_like(values), values)
    ax.axvline(0, color=_GREY, linewidth=0.8)
    ax.set_ylim(len(parts) - 0.4, -0.6)
    return figure


def beeswarm(result: TableAttribution, n_columns: int = 15) -> Figure:
    """Draw the values of all rows, a line of points for each of the most important columns.

    Columns are in the order of their mean absolute values. Points have the colour of the cell's
    rank in its column; words and missing cells are grey.

    Args:
        result: of `unilens.tables.explain`.
        n_columns: the most important ones; the sum of all others is one line.
    """
    _check_result(result)
    values = result.attribution.values.double().cpu().numpy()
    order = numpy.argsort(-numpy.abs(values).mean(0), kind="stable")
    shown, others = _split(order, check_count("n_columns", n_columns))
    columns = [(result.names[i], values[:, i], _ranks(result, i)) for i in shown]
    if len(others):
        none = numpy.full(len(values), numpy.nan)
        columns.append((f"{len(others)} others together", values[:, others].sum(1), none))
    title = f"{len(result)} row{'s' * (len(result) != 1)}: contributions to the {result.unit}"
    figure, ax = _figure(title, [_wrapped(name) for name, _, _ in columns], more=0.5)
    scale = max(float(numpy.abs(values).max()), 1e-12)
    points: Any = None
    for place, (_, line, ranks) in enumerate(columns):
        heights = place + _offsets(line / scale)
        grey = numpy.isnan(ranks)
        ax.scatter(line[grey], heights[grey], s=12, color="#999999", linewidths=0)
        points = ax.scatter(
            *(line[~grey], heights[~grey]),
            c=ranks[~grey], cmap="viridis", vmin=0, vmax=1, s=12, linewidths=0,
        )  # fmt: skip
    ax.axvline(0, color=_GREY, linewidth=0.8, zorder=0)
    ax.set_ylim(len(columns) - 0.4, -0.6)
    ax.set_xlabel(f"contribution to the {result.unit}", fontsize=9)
    bar = figure.colorbar(points, ax=ax, ticks=[0, 1], aspect=40, pad=0.02)
    bar.ax.set_yticklabels(["low", "high"], fontsize=8)
    bar.set_label("cell, by rank; grey: words, missing", fontsize=8, color=_GREY)
    return figure


def row_parts(result: TableAttribution, row: int, n_columns: int) -> list[Contribution]:
    """Return the strongest contributions of a row, and the sum of the others as one more."""
    _check_result(result)
    parts = result.strongest(row, None)
    shown, others = _split(parts, check_count("n_columns", n_columns))
    if others:
        total = sum(part.value for part in others)
        shown = [*shown, Contribution(f"{len(others)} others together", "", total, None)]
    return list(shown)


def _check_result(result: object) -> None:
    """Raise unless it is the explanation of a table."""
    require(
        isinstance(result, TableAttribution),
        f"expected a result of unilens.tables.explain, got {type(result).__name__}; draw others "
        "with unilens.viz.panel",
    )


def _split(items: Any, count: int) -> tuple[Any, Any]:
    """Return the first items, and the others; never one other alone."""
    count = len(items) if len(items) <= count + 1 else count
    return items[:count], items[count:]


def _label(part: Contribution) -> str:
    return _wrapped(f"{part.name} = {part.cell}" if part.cell else part.name)


def _wrapped(text: str) -> str:
    """Return a label in lines; a very long one loses its middle."""
    text = drawable(one_line(text))
    most = _LABEL * _MOST_LINES
    if len(text) > most:
        text = f"{text[: most // 2 - 2]} ... {text[-(most // 2 - 3) :]}"
    spaced = re.sub(r"([_=/])(?=\w)", rf"\1{_BREAK} ", text)  # names break at their joints
    lines_of_label = wrap(spaced, _LABEL, break_long_words=True)
    return "\n".join(line.replace(f"{_BREAK} ", "").rstrip(_BREAK) for line in lines_of_label)


def _axes(result: TableAttribution, row: int, labels: list[str], title: str) -> tuple[Figure, Axes]:
    """Return axes for one row, with the title and the verdict."""
    check_text("title", title)
    score = float(result.score[row])
    label = one_line(result.target[row])
    of_class = f"why “{label[:40]}”? " if result.has_classes else ""
    title = f"{title or f'Row {row}'}: {of_class}{result.unit} {score:.3g}"
    line = lines(result.attribution, row)[0]
    verdict = wrap(str(line), 95)
    figure, ax = _figure(title, labels, more=0.75 + _LINE * len(verdict))
    ax.set_xlabel(
        f"contribution to the {result.unit}; orange: for, purple: against", fontsize=9, color=_GREY
    )
    figure.supxlabel("\n".join(verdict), fontsize=8, color=line.style.colour, parse_math=False)
    return figure, ax


def _figure(title: str, labels: list[str], more: float) -> tuple[Figure, Axes]:
    """Return axes with a line for each label, high enough for the longest one."""
    lines_of_label = max(label.count("\n") + 1 for label in labels)
    height = (len(labels) + 1.5) * max(0.3, _LINE * lines_of_label + _GAP) + 0.9 + more
    figure = new_figure(_WIDTH, height, "")
    figure.suptitle(drawable(title), fontsize=12, parse_math=False)
    ax = figure.subplots()
    ax.set_yticks(range(len(labels)), labels, fontsize=9, parse_math=False)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.tick_params(axis="x", labelsize=8)
    return figure, ax


def _draw_bars(ax: Axes, starts: Array, ends: Array) -> None:
    """Draw bars from start to end, with their lengths written beside them."""
    values = ends - starts
    colours = [FOR if value >= 0 else AGAINST for value in values]
    ax.barh(range(len(values)), values, left=starts, color=colours, height=0.72)
    low, high = min(starts.min(), ends.min()), max(starts.max(), ends.max())
    span = (high - low) or 1.0
    ax.set_xlim(low - 0.16 * span, high + 0.16 * span)
    for place, (value, start, end) in enumerate(zip(values, starts, ends, strict=True)):
        right = value >= 0
        ax.text(
            (max if right else min)(start, end) + (0.01 if right else -0.01) * span,
            place,
            f"{0.0 if abs(value) < 1e-12 else value:+.3g}",
            ha="left" if right else "right",
            va="center",
            fontsize=8.5,
        )


def _ranks(result: TableAttribution, group: int) -> Array:
    """Return the rank in [0, 1] of each row's number in a column; NaN for words and missing."""
    columns = result.groups[group].columns
    cells = result.rows.column(columns[0]) if len(columns) == 1 else []
    numbers = [numpy.nan if is_missing(cell) else as_number(cell) for cell in cells]
    if not numbers or not all(isinstance(number, (bool, int, float)) for number in numbers):
        return numpy.full(len(result), numpy.nan)
    values = numpy.array(numbers, dtype=numpy.float64)
    _, ranks = numpy.unique(values, return_inverse=True)
    known = ~numpy.isnan(values)
    most = max(1, int(ranks[known].max(initial=0)))
    return numpy.where(known, ranks / most, numpy.nan)


def _offsets(values: Array) -> Array:
    """Return heights within ±0.38 that keep points with nearly the same value apart."""
    bins = numpy.round(values * 60).astype(int)
    offsets = numpy.zeros(len(values))
    largest = max(numpy.unique(bins, return_counts=True)[1])
    step = min(0.09, 0.76 / largest)
    for number in numpy.unique(bins):
        index = numpy.flatnonzero(bins == number)
        places = numpy.arange(len(index))
        offsets[index] = (places + 1) // 2 * numpy.where(places % 2, 1, -1) * step
    return offsets.clip(-0.38, 0.38)

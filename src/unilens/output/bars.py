"""Pictures of rows of tables: bars of the columns that contribute most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attribution import Attribution
from .figures import AGAINST, FOR, GREY, Drawing, draw_path, headings, new_figure, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_BARS = 12
_WIDTH = 6.2
_NAME = 12
"""Points of a method's name."""
_COLOURS = {"unsigned": "#b5367a", "green": "#2a9d3a"}


def panel(drawing: Drawing, title: str) -> Figure:
    """Draw one row per method: the bars, and the path."""
    names, more = headings(drawing, _WIDTH - 2, _NAME)
    height = 0.26 * _n_bars(drawing) + 1.5 + more
    figure = new_figure(_WIDTH + 3.6, height * len(drawing.attributions), title)
    grid = figure.subplots(len(drawing.attributions), 2, squeeze=False, width_ratios=(_WIDTH, 3.0))
    for (ax, path), name, (_, attribution, values) in zip(grid, names, drawing, strict=True):
        _draw_bars(ax, drawing, name, attribution, values)
        draw_path(path, attribution, drawing.index, "row", drawing.path_measure)
    return figure


def comparison(drawing: Drawing, title: str, columns: int) -> Figure:
    """Draw the bars of the methods beside each other."""
    count = len(drawing.attributions)
    beside = min(max(columns // 3, 1), count)
    rows = -(-count // beside)
    names, more = headings(drawing, _WIDTH - 2, _NAME)
    height = 0.26 * _n_bars(drawing) + 1.5 + more
    figure = new_figure(_WIDTH * beside, height * rows + 0.4 * bool(title), title)
    grid = figure.subplots(rows, beside, squeeze=False).flatten()
    for ax in grid[count:]:
        ax.set_axis_off()
    for ax, name, (_, attribution, values) in zip(grid, names, drawing, strict=False):
        _draw_bars(ax, drawing, name, attribution, values)
    return figure


def _n_bars(drawing: Drawing) -> int:
    return min(drawing.image.numel(), _MOST_BARS) + (drawing.image.numel() > _MOST_BARS)


def _draw_bars(
    ax: Any, drawing: Drawing, name: str, attribution: Attribution, values: Tensor
) -> None:
    """Draw the columns with the largest values `(F,)`, and the sum of all others."""
    known = values.double().nan_to_num(0, 0, 0)
    if drawing.style != "signed":
        known = known.abs()
    order = known.abs().argsort(descending=True, stable=True)
    shown, others = order[:_MOST_BARS].tolist(), order[_MOST_BARS:].tolist()
    widths = [float(known[column]) for column in shown]
    labels = [_label(drawing, column) for column in shown]
    if others:
        widths.append(float(known[others].sum()))
        labels.append(f"{len(others)} other columns together")
    positions = range(len(widths))
    ax.barh(positions, widths, color=_colours(drawing, widths, bool(others)), height=0.75)
    ax.bar_label(ax.containers[0], [f"{width:+.3g}" for width in widths], fontsize=8, padding=3)
    ax.set_yticks(positions, labels, fontsize=9, parse_math=False)
    ax.invert_yaxis()
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.margins(x=0.2)
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(name, fontsize=_NAME, parse_math=False)
    text, font = verdict(attribution, drawing.index, _WIDTH - 2)
    meaning = "orange: for, purple: against" if drawing.style == "signed" else "how much"
    ax.set_xlabel(f"{meaning}, in units of the score\n{text}", **font)


def _label(drawing: Drawing, column: int) -> str:
    name = f"column {column}" if drawing.names is None else drawing.names[column]
    return f"{name} = {float(drawing.image[column]):.4g}"


def _colours(drawing: Drawing, widths: Sequence[float], others: bool) -> list[str]:
    """Return the colours of bars; the last one is pale where it stands for all others."""
    colour = _COLOURS.get(drawing.style)
    colours = [colour or (FOR if width > 0 else AGAINST) for width in widths]
    return [*colours[:-1], f"{colours[-1]}80"] if others else colours

"""Draw in the style of the charts of the pages."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure

PURPLE, SLATE, LIGHT, ORANGE = "#5e35b1", "#78909c", "#cfd8dc", "#e66100"


class Chart(NamedTuple):
    """What opens a page.

    Attributes:
        figure: the chart.
        rows: the lines of the table under it: the heading, the rule and five rows; none where the
            page has such a table.
    """

    figure: Figure
    rows: list[str]


def folded(name: str) -> str:
    """Return a name over several lines."""
    return textwrap.fill(name.replace("_", " "), 12)


def blank(height: float) -> Figure:
    """Return a figure as wide as the text of a page."""
    return Figure(figsize=(7.4, height), layout="constrained", facecolor="white")


def bars(axes: Axes, names: Sequence[str], lengths: Sequence[float], title: str) -> None:
    """Draw horizontal bars with their values, from the top down."""
    colours = [
        PURPLE
        if name.startswith("uni")
        else LIGHT
        if "random" in name or "edges" in name
        else SLATE
        for name in names
    ]
    axes.barh(range(len(names)), lengths, color=colours)
    axes.set_yticks(range(len(names)), names, size=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_title(title, fontsize=9)
    tidy(axes)


def tidy(axes: Axes) -> None:
    """Take away what carries no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)

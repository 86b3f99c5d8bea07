"""Pictures of images: a row for each method, or a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attribution import Attribution
from .colours import heatmap, overlay, pixels
from .figures import (
    GREY,
    Drawing,
    draw_path,
    hide_frame,
    legend,
    new_figure,
    scale_of,
    verdict,
    write_centred,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def panel(drawing: Drawing, title: str) -> Figure:
    """Draw one row per method: image, baseline, heatmap, overlay, path."""
    rows = len(drawing.attributions)
    figure = new_figure(15, 3.1 * rows + 0.75, title)
    grid = figure.subplots(rows, 5, squeeze=False)
    for axes, (name, attribution, values) in zip(grid, drawing, strict=True):
        axes[0].set_ylabel(name, fontsize=13, parse_math=False)
        _draw_row(axes, drawing, attribution, values)
    headings = ("image", "baseline", "heatmap", "overlay", drawing.path_measure)
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=11)
    return figure


def comparison(drawing: Drawing, title: str, columns: int) -> Figure:
    """Draw one column per method after that of the image: the heatmap above the overlay."""
    image = drawing.view.image(drawing.view.values(drawing.image))
    blocks = -(-(len(drawing.attributions) + 1) // columns)
    verdicts = [verdict(one, drawing.index, 2.1) for one in drawing.attributions.values()]
    n_lines = max(text.count("\n") + 1 for text, _ in verdicts)
    figure = new_figure(2.1 * columns, (4.6 + 0.18 * n_lines) * blocks + 0.7, title)
    grid = figure.subplots(2 * blocks, columns, squeeze=False)
    for ax in grid.flat:
        ax.set_axis_off()
    grid[0, 0].imshow(pixels(image))
    grid[0, 0].set_title("image", fontsize=11)
    for position, (name, _, values) in enumerate(drawing, start=1):
        block, column = divmod(position, columns)
        above, below = grid[2 * block : 2 * block + 2, column]
        above.imshow(heatmap(values, drawing.style))
        above.set_title(name, fontsize=11, parse_math=False, wrap=True)
        below.imshow(overlay(image, values, drawing.style))
        text, font = verdicts[position - 1]
        below.set_anchor("N")
        below.text(0.5, -0.03, text, ha="center", va="top", transform=below.transAxes, **font)
    return figure


def _draw_row(axes: Any, drawing: Drawing, attribution: Attribution, values: Tensor) -> None:
    for ax in axes[:4]:
        hide_frame(ax)
    given, style = drawing.view.values(drawing.image), drawing.style
    image, baseline = drawing.view.image(given), drawing.baseline(attribution)
    axes[0].imshow(pixels(image))
    if baseline is None:
        write_centred(axes[1], "no baseline")
    else:
        axes[1].imshow(pixels(drawing.view.image(baseline)))
        change = baseline - given.to(baseline)
        largest, distance = float(change.abs().max()), float(change.double().norm())
        axes[1].set_xlabel(
            f"distance {distance:.3g}, largest change {largest:.2g}", fontsize=8, color=GREY
        )
    axes[2].imshow(heatmap(values, style))
    axes[2].set_xlabel(legend(style, scale_of(values, style)), fontsize=8, color=GREY)
    axes[3].imshow(overlay(image, values, style))
    text, font = verdict(attribution, drawing.index, 2.8)
    axes[3].set_xlabel(text, **font)
    draw_path(axes[4], attribution, drawing.index)

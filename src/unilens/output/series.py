"""Pictures of series: a line for each channel, over its attribution in colour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy
from torch import Tensor

from ..attribution import Attribution
from .colours import coloured
from .figures import GREY, Drawing, draw_path, headings, legend, new_figure, scale_of, verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CHANNELS = 8
_WIDTH = 9.5
_NAME = 13
"""Points of a method's name."""


def panel(drawing: Drawing, title: str) -> Figure:
    """Draw one block per method: the channels below each other, and beside them the path."""
    return _draw(drawing, title, path=True)


def comparison(drawing: Drawing, title: str, columns: int) -> Figure:
    """Draw one block per method: the channels below each other."""
    return _draw(drawing, title, path=False)


def _draw(drawing: Drawing, title: str, *, path: bool) -> Figure:
    maps = list(drawing)
    shown = min(len(maps[0][2]), _MOST_CHANNELS)
    names, more = headings(drawing, _WIDTH, _NAME)
    height = max(0.75 * shown, 1.6) + 1.2 + more
    width = _WIDTH + 3.4 * path
    figure = new_figure(width, height * len(maps) + 0.4 * bool(title), title)
    blocks = figure.subfigures(len(maps), 1, squeeze=False)[:, 0]
    for block, name, (_, attribution, values) in zip(blocks, names, maps, strict=True):
        if path:
            block, right = block.subfigures(1, 2, width_ratios=(_WIDTH, 3.4))
            ax = right.subplots()
            draw_path(ax, attribution, drawing.index, "series", drawing.path_measure)
        _draw_channels(block, drawing, name, attribution, values)
    return figure


def _draw_channels(
    figure: Any, drawing: Drawing, name: str, attribution: Attribution, values: Tensor
) -> None:
    """Draw the signal `(C, T)` of the strongest channels over their map."""
    signal, baseline = drawing.view.values(drawing.image), drawing.baseline(attribution)
    channels = _strongest(values)
    scale = scale_of(values, drawing.style)
    grid = figure.subplots(len(channels), 1, squeeze=False, sharex=True)[:, 0]
    for ax, channel in zip(grid, channels, strict=True):
        lines = [signal[channel]] if baseline is None else [signal[channel], baseline[channel]]
        _draw_channel(ax, lines, values[channel], scale, drawing.style)
        label = f"channel {channel}" if drawing.names is None else drawing.names[channel]
        ax.set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9, parse_math=False)
    figure.suptitle(name, fontsize=_NAME, parse_math=False)
    grid[0].set_title(
        _caption(drawing, values, channels, scale, baseline is not None), fontsize=8, color=GREY
    )
    grid[-1].set_xlabel("time step", fontsize=9)
    text, font = verdict(attribution, drawing.index, _WIDTH)
    figure.supxlabel(text, **font)


def _strongest(values: Tensor) -> list[int]:
    """Return the channels with the largest attribution, in their own order."""
    strength = values.double().nan_to_num(0, 0, 0).abs().sum(1)
    order = strength.argsort(descending=True, stable=True)
    return sorted(order[:_MOST_CHANNELS].tolist())


def _caption(
    drawing: Drawing, values: Tensor, channels: Sequence[int], scale: float, compared: bool
) -> str:
    said = [legend(drawing.style, scale)]
    if compared:
        said.append("thin grey line: baseline")
    if len(channels) < len(values):
        said.append(
            f"{len(channels)} of {len(values)} channels, those with the largest attribution"
        )
    if not drawing.view.axes.sure:
        said.append("the first axis is taken as channels: pass channels= to say which")
    return "; ".join(said)


def _draw_channel(
    ax: Any, lines: Sequence[Tensor], values: Tensor, scale: float, style: str
) -> None:
    """Draw the lines of one channel, `(T,)` each, the signal first, over a band of its map."""
    signal, *others = (line.double().numpy() for line in lines)
    known = numpy.concatenate([signal, *others])
    known = known[numpy.isfinite(known)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.5
    low, high, steps = float(low - margin), float(high + margin), len(signal)
    map_ = values.double().nan_to_num(0, 0, 0).numpy()[None]
    band = coloured(map_ if style == "signed" else numpy.abs(map_), scale, style)
    ax.imshow(band, extent=(-0.5, steps - 0.5, low, high), aspect="auto", interpolation="nearest")
    from matplotlib import patheffects

    outline = [patheffects.withStroke(linewidth=2.4, foreground="white")]
    marker = "o" if steps <= 60 else ""
    for other in others:
        ax.plot(other, color="#777777", linewidth=0.8)
    ax.plot(
        signal, color="#111111", linewidth=1.1, marker=marker, markersize=2.5, path_effects=outline
    )
    ax.set_xlim(-0.5, steps - 0.5)
    ax.set_ylim(low, high)
    ax.tick_params(labelsize=7)
    ax.yaxis.set_major_locator(_two_ticks())


def _two_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(2)

"""Figures of texts: words on their map in colour."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy
import torch

from .._validation.settings import check_choice
from ..attribution import Attribution
from ..errors import require
from .colours import STYLES, colour_scale, coloured, flatten
from .figures import hide_frame, legend, line_height, new_figure, verdict
from .text import drawable, wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 11.0
_FONT = 10
_TITLE = 11
_CHARACTER = 0.602 * _FONT / 72
"""Inches of a character in the font of one width."""
_LINE = 0.3
_DARK = 0.45
"""Brightness below which letters are white."""


class TextMap(Protocol):
    """What `unilens.text.explain_text` returns, as far as it is drawn."""

    label: str
    attribution: Attribution

    def pieces(self, by: str = "word") -> list[tuple[str, float | None]]:
        """Return the text in pieces, each with its value, or None."""


def panel(text: str, attributions: Mapping[str, TextMap], title: str, style: str) -> Figure:
    """Draw the words of a text in colours, a block for each method; see `viz.panel`."""
    check_choice("style", style, STYLES)
    require(bool(attributions), 'expected maps by name, as {"ig": explanation}, got none')
    blocks = {}
    for name, explanation in attributions.items():
        require(
            hasattr(explanation, "pieces"),
            f"expected what unilens.text.explain_text returns for {name!r}, got "
            f"{type(explanation).__name__}; pass the input itself for other attributions",
        )
        pieces = explanation.pieces()
        whole = "".join(piece for piece, _ in pieces)
        require(
            whole == text,
            f"expected the text that was explained, {whole[:60]!r}, got {text[:60]!r}",
        )
        blocks[name] = list(_lines(pieces))
    titles = [
        wrapped(f"{name}: {attributions[name].label}", _WIDTH - 0.6, _TITLE) for name in blocks
    ]
    heights = [
        _LINE * len(lines) + 0.9 + line_height(_TITLE) * heading.count("\n")
        for heading, lines in zip(titles, blocks.values(), strict=True)
    ]
    figure = new_figure(_WIDTH, sum(heights) + 0.4 * bool(title), title)
    axes = figure.subplots(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for ax, (name, lines), heading in zip(axes, blocks.items(), titles, strict=True):
        ax.set_title(heading, fontsize=_TITLE, parse_math=False)
        _draw(ax, attributions[name], lines, style)
    return figure


def _lines(
    pieces: list[tuple[str, float | None]],
) -> Iterator[list[tuple[int, str, float | None]]]:
    """Yield lines of pieces, each with the column at which it begins."""
    most, column = int((_WIDTH - 0.6) / _CHARACTER), 0
    line: list[tuple[int, str, float | None]] = []
    for piece, value in pieces:
        shown = drawable(" ".join(piece.split("\n")))
        for start in range(0, max(len(shown), 1), most):
            part = shown[start : start + most]
            if column + len(part) > most and line:
                yield line
                line, column = [], 0
            if not line and part.isspace():
                continue
            line.append((column, part, value))
            column += len(part)
    yield line


def _draw(
    ax: Any,
    explanation: TextMap,
    lines: list[list[tuple[int, str, float | None]]],
    style: str,
) -> None:
    values = [value or 0.0 for _, value in explanation.pieces()]
    flat = flatten(torch.tensor(values).view(1, 1, -1), style)
    scale = colour_scale(flat)
    hide_frame(ax)
    ax.set_xlim(0, (_WIDTH - 0.6) / _CHARACTER)
    ax.set_ylim(len(lines), -0.2)
    for row, line in enumerate(lines):
        for column, part, value in line:
            signed = flatten(torch.tensor([[[value or 0.0]]]), style)
            colour = coloured(signed, scale, style)[0, 0]
            box = None if value is None else {"facecolor": colour, "linewidth": 0, "pad": 1.5}
            dark = value is not None and float(numpy.mean(colour)) < _DARK
            ax.text(
                column,
                row + 0.5,
                part,
                family="monospace",
                fontsize=_FONT,
                va="center",
                color="white" if dark else "black",
                bbox=box,
                parse_math=False,
            )
    text, font = verdict(explanation.attribution, 0, _WIDTH - 1)
    ax.set_xlabel(f"{legend(style, scale)}\n{text}", **font)

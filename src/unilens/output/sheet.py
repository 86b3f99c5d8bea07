"""A figure whose pictures and labels are placed in inches, so that none covers another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from .colours import Array, coloured, laid_over
from .figures import GREY, hide_frame, line_height
from .text import text_width, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARGIN = 0.2
_TITLE = 15
_BAR = 0.11
LABEL = 7.5
"""Points of the font of what is small."""
_BELOW_TITLE = 0.2
"""Inches between the title and what follows."""


class Sheet:
    """An empty figure; places are inches from its left and from below its title.

    Args:
        width: of the figure.
        height: below the title.
        title: of the figure, in as many lines as it needs.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure
        shown = wrapped(title, width - 2 * MARGIN, _TITLE)
        self._top = MARGIN + (text_height(shown, _TITLE) + _BELOW_TITLE) * bool(shown)
        self._width, self._height = width, height + self._top
        self.figure = Figure(figsize=(width, self._height), facecolor="white")
        if shown:
            y = 1 - MARGIN / self._height
            self.figure.suptitle(shown, y=y, va="top", fontsize=_TITLE, parse_math=False)

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Return axes that fill this place."""
        bottom = self._height - self._top - top - height
        return self.figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                width / self._width,
                height / self._height,
            )
        )

    def picture(self, left: float, top: float, size: tuple[float, float], colours: Array) -> Axes:
        """Draw colours `(H, W, 3)` at this width and height."""
        ax = self.axes(left, top, *size)
        hide_frame(ax)
        ax.imshow(colours, aspect="auto")
        return ax

    def text(self, left: float, top: float, text: str, size: float, **font: Any) -> float:
        """Write lines and return their height."""
        y = 1 - (self._top + top) / self._height
        font = {"va": "top", "parse_math": False, "fontsize": size, **font}
        self.figure.text(left / self._width, y, text, **font)
        return text_height(text, size)

    def rule(self, left: float, top: float, width: float) -> None:
        """Draw a thin horizontal line."""
        from matplotlib.lines import Line2D

        y = 1 - (self._top + top) / self._height
        ends = [left / self._width, (left + width) / self._width]
        self.figure.add_artist(Line2D(ends, [y, y], color="#999999", linewidth=0.8))

    def colour_bar(
        self,
        left: float,
        top: float,
        width: float,
        style: str,
        words: Sequence[str],
        values: Sequence[str] = (),
        *,
        one_sided: bool = False,
        over: bool = False,
    ) -> None:
        """Draw the colours of a map between the words for its two ends.

        Args:
            left: of the bar with its words.
            top: of the bar.
            width: of the bar with its words.
            style: one of `STYLES`.
            words: for the two ends.
            values: of the map at the two ends, below the bar.
            one_sided: whether there are no colours against the class.
            over: whether the colours are those of an overlay.
        """
        side = max(text_width(word, LABEL) for word in words) + 0.06
        bar = self.axes(left + side, top, max(width - 2 * side, 0.05), _BAR)
        first = -1.0 if style == "signed" and not one_sided else 0.0
        ramp, white = numpy.linspace(first, 1, 256)[None], numpy.ones((1, 256, 3))
        colours = laid_over(white, ramp, 1.0, style) if over else coloured(ramp, 1.0, style)
        bar.imshow(colours, aspect="auto")
        bar.set_axis_off()
        for ends, inset, down in ((words, 0.0, -0.02), (values, side, 0.14)):
            places = (("left", left + inset), ("right", left + width - inset))
            for end, (align, x) in zip(ends, places, strict=False):
                self.text(x, top + down, end, LABEL, ha=align, color=GREY)


def text_height(text: str, size: float) -> float:
    """Return the height of lines in inches."""
    return line_height(size) * (text.count("\n") + 1) if text else 0.0

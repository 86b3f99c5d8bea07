"""The page of an audit as a PDF of one sheet, drawn by matplotlib alone."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from ...output.text import drawable
from .page import STYLES, Page, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIZE = (8.27, 11.69)
"""A4, in inches."""
_LEFT, _RIGHT = 0.06, 0.94
_LINE = 0.0125
"""Height of a line of text, as a share of the sheet's."""
_FONT = 8.0
_CHARACTERS = 118
"""In a line of that font."""
_SOFT = "#59616b"


class _Sheet:
    """A sheet that is filled from the top."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=_SIZE, facecolor="white")
        self._top = 0.975

    def write(
        self, text: str, *, size: float = _FONT, colour: str = "#1b1f24", bold: bool = False
    ) -> None:
        """Write a paragraph, broken into lines."""
        for line in wrap(drawable(text), round(_CHARACTERS * _FONT / size * (0.92 if bold else 1))):
            self._top -= _LINE * size / _FONT
            self.figure.text(
                _LEFT,
                self._top,
                line,
                size=size,
                color=colour,
                parse_math=False,
                weight="bold" if bold else "normal",
            )

    def space(self, lines: float = 0.6) -> None:
        """Leave some lines empty."""
        self._top -= _LINE * lines

    def pictures(self, pictures: list[Picture], height: float, across: int = 4) -> None:
        """Draw pictures beside each other with their captions."""
        width = (_RIGHT - _LEFT) / across
        self._top -= height
        for column, picture in enumerate(pictures[:across]):
            ax = self.figure.add_axes((_LEFT + column * width, self._top, width * 0.95, height))
            ax.imshow(picture.colours)
            ax.set_axis_off()
            ax.set_anchor("W")
            text = "\n".join(wrap(drawable(picture.caption), 34)[:2])
            self.figure.text(
                _LEFT + column * width,
                self._top - 0.002,
                text,
                size=6.5,
                color=_SOFT,
                va="top",
                parse_math=False,
            )
        self.space(2.1)

    def table(self, headings: list[str], rows: list[list[str]], starts: list[float]) -> None:
        """Write a table; `starts` are the left ends of the columns, from 0 to 1."""
        for number, row in enumerate([headings, *rows]):
            self._top -= _LINE * 0.92
            for start, cell in zip(starts, row, strict=True):
                self.figure.text(
                    _LEFT + start * (_RIGHT - _LEFT),
                    self._top,
                    drawable(cell),
                    size=7,
                    color="#1b1f24" if number else _SOFT,
                    parse_math=False,
                )


def write_pdf(page: Page, path: Path) -> None:
    """Write the page to a PDF of one sheet."""
    sheet = _Sheet()
    sheet.write(page.title, size=14, bold=True)
    sheet.write(f"{page.about} {page.accuracy}", colour=_SOFT)
    for sentence in page.short:
        symbol, colour, _ = STYLES[sentence.level]
        sheet.space(0.4)
        sheet.write(f"{symbol} {sentence.title}", colour=colour, bold=True, size=9)
        sheet.write(sentence.text)
    for example in page.examples[:1]:
        sheet.space(0.4)
        sheet.write(f"The mark in {example.place}, framed:", colour=_SOFT)
        sheet.space(0.3)
        sheet.pictures(list(example.pictures), 0.075)
    for group in page.groups:
        sheet.space(0.5)
        sheet.write(group.title, bold=True, size=9)
        sheet.space(0.3)
        sheet.pictures(list(group.pictures), 0.075)
    _write_tables(sheet, page)
    sheet.figure.savefig(path, format="pdf", metadata={"Title": page.title})


def _write_tables(sheet: _Sheet, page: Page) -> None:
    sheet.write(
        f"Each photograph stands left, and right again: orange where {page.methods} say that the "
        "model looked, and the stronger the more of them agree.",
        colour=_SOFT,
    )
    sheet.space()
    sheet.write("Does it look where it should not?", bold=True, size=9)
    headings = [
        "place",
        "photographs",
        "share of attention",
        "by chance at most",
        "lost if covered",
        "suspicious",
    ]
    rows = [
        [row["place"], str(row["n"]), row["share"], row["chance"], row["fall"], row["suspicious"]]
        for row in page.regions
    ]
    sheet.table(headings, rows, [0, 0.26, 0.38, 0.58, 0.73, 0.91])
    sheet.space()
    sheet.write("Can these pictures be trusted?", bold=True, size=9)
    sheet.table(
        ["method", "does it find what matters?", "own checks passed"],
        [[row["name"], row["text"], row["checks"]] for row in page.trust],
        [0, 0.18, 0.85],
    )
    for note in page.notes:
        sheet.write(note, colour=_SOFT)

"""Pictures of images: a row for each method with all there is to see, or a cell for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from ..attribution import Attribution
from .colours import Array, colour_scale, flatten, heatmap, overlay, pixels
from .figures import GREY, Drawing, draw_path, verdict, write_centred
from .sheet import LABEL, MARGIN, Sheet, text_height
from .text import wrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SLOT, _GAP = 2.4, 0.2
"""Inches of a picture in a panel, and between two."""
_PATH, _PATH_LABELS = 2.6, 0.45
_LOWEST, _LEAST, _MOST = 0.4, 1.6, 3.2
"""Heights of the pictures in a row, in inches: at least, at least beside a path, and at most."""
_CELL = 1.75
_FINE = 448
"""Pixels along the longer side of an overlay, at least."""
_NAME, _VERDICT, _SMALL = 12, 9, LABEL
_HEADING, _CELL_NAME, _CELL_VERDICT = 11, 9.5, 7
"""Points of the fonts."""
_TITLE: Mapping[str, Any] = {
    "fontsize": _CELL_NAME,
    "weight": "bold",
    "pad": 3,
    "parse_math": False,
}
_CONTROLS = "control: does not depend on the model"
_LEGEND = (
    "Above, the map as it is; below, smoothed a little, over the photograph. The line runs around "
    "the strongest tenth. Each map has its own scale."
)


@dataclass(frozen=True, slots=True)
class _Map:
    """One method's map of an image, and what is said of it.

    Attributes:
        heat, over: the map as it is, and smoothed over the photograph, as colours.
        scale: the value of full colour of the map as it is, from its origin.
        origin: see `Drawing.origin`.
    """

    name: str
    attribution: Attribution
    heat: Array
    over: Array
    scale: float
    origin: float

    @classmethod
    def all(cls, drawing: Drawing) -> Iterator[_Map]:
        """Yield the maps of a drawing."""
        image = drawing.view.image(drawing.view.values(drawing.image))
        zoom = -(-_FINE // max(image.shape[1:]))
        for name, attribution, values in drawing:
            origin = drawing.origin(attribution, values)
            scale = colour_scale(flatten(values, drawing.style) - origin)
            heat = heatmap(values, drawing.style, scale, origin)
            over = overlay(image, values, drawing.style, origin=origin, zoom=zoom)
            yield cls(name, attribution, heat, over, scale, origin)

    @property
    def family(self) -> str:
        """The method's family; empty where it is not known."""
        return str(self.attribution.provenance.get("family", ""))

    def ends(self, style: str) -> tuple[str, str]:
        """Return the values at the two ends of the colours."""
        low = self.origin - self.scale * (style == "signed" and not self.origin)
        return f"{low:.2g}".replace("-", "−", 1), f"{self.origin + self.scale:.2g}"


def panel(drawing: Drawing, title: str) -> Figure:
    """Draw one row per method: image, baseline, heatmap, overlay, path."""
    width = 2 * MARGIN + 4 * (_SLOT + _GAP) + _PATH_LABELS + _PATH
    rows = [_Row(drawing, map_, width) for map_ in _Map.all(drawing)]
    sheet, top = Sheet(width, sum(row.height for row in rows), title), 0.0
    for row in rows:
        row.draw(sheet, top)
        top += row.height
    return sheet.figure


class _Row:
    """A row of a panel."""

    def __init__(self, drawing: Drawing, map_: _Map, width: float) -> None:
        self.drawing, self.map = drawing, map_
        inner = width - 2 * MARGIN
        self.name = wrapped(map_.name, inner, _NAME, bold=True)
        self.verdict, self.font = verdict(map_.attribution, drawing.index, inner, _VERDICT)
        self.size = _size(map_.heat, _SLOT, _MOST)
        least = _LEAST if map_.attribution.trace is not None else _LOWEST
        self.pictures = max(self.size[1], least)
        self.head = text_height(self.name, _NAME) + text_height(self.verdict, _VERDICT) + 0.3
        self.height = self.head + self.pictures + 0.75

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draw the row below `top`."""
        below = top + sheet.text(MARGIN, top, self.name, _NAME, weight="bold")
        sheet.text(MARGIN, below, self.verdict, _VERDICT, **_without_size(self.font))
        top += self.head
        given, style = self.drawing.view.values(self.drawing.image), self.drawing.style
        self._picture(sheet, 0, top, "image", pixels(self.drawing.view.image(given)))
        self._baseline(sheet, top, given)
        self._picture(sheet, 2, top, "heatmap", self.map.heat)
        self._picture(sheet, 3, top, "overlay", self.map.over)
        ax = sheet.axes(_left(4) + _PATH_LABELS, top, _PATH, self.pictures)
        draw_path(ax, self.map.attribution, self.drawing.index)
        if self.map.attribution.trace is not None:
            ax.set_title(self.drawing.path_measure, fontsize=10)
        ax.tick_params(labelsize=8)
        self._bars(sheet, top + self.pictures + 0.1, style)

    def _picture(self, sheet: Sheet, slot: int, top: float, name: str, colours: Array) -> None:
        across, down = (_SLOT - self.size[0]) / 2, (self.pictures - self.size[1]) / 2
        ax = sheet.picture(_left(slot) + across, top + down, self.size, colours)
        ax.set_title(name, fontsize=10)

    def _baseline(self, sheet: Sheet, top: float, given: Tensor) -> None:
        """Draw the baseline, and how far it is from the image."""
        baseline = self.drawing.baseline(self.map.attribution)
        if baseline is None:
            write_centred(sheet.axes(_left(1), top, _SLOT, self.pictures), "no baseline")
            return
        colours = pixels(self.drawing.view.image(baseline))
        self._picture(sheet, 1, top, "baseline", colours)
        change = baseline - given.to(baseline)
        largest, distance = float(change.abs().max()), float(change.double().norm())
        text = wrapped(f"distance {distance:.3g}, largest change {largest:.2g}", _SLOT, _SMALL)
        sheet.text(_left(1) + _SLOT / 2, top + self.pictures + 0.08, text, _SMALL, **_CENTRED)

    def _bars(self, sheet: Sheet, top: float, style: str) -> None:
        one_sided = bool(self.map.origin)
        words, values = _words(style, one_sided), self.map.ends(style)
        sheet.colour_bar(_left(2), top, _SLOT, style, words, values, one_sided=one_sided)
        sheet.colour_bar(_left(3), top, _SLOT, style, words, one_sided=one_sided, over=True)
        text = "smoothed; outline: the strongest tenth"
        sheet.text(_left(3) + _SLOT / 2, top + 0.17, text, _SMALL, **_CENTRED)


def _words(style: str, one_sided: bool = False) -> tuple[str, str]:
    """Return what the two ends of the colours of a map stand for, without numbers."""
    signed = style == "signed" and not one_sided
    return ("against", "for") if signed else ("weakest", "strongest")


_CENTRED = {"ha": "center", "color": GREY}


def _without_size(font: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in font.items() if name != "fontsize"}


def _left(slot: int) -> float:
    return MARGIN + slot * (_SLOT + _GAP)


def _size(picture: Array, width: float, most: float) -> tuple[float, float]:
    """Return the width and height in inches of a picture `(H, W, 3)` in a place of this size."""
    height, across = picture.shape[:2]
    scale = min(width / across, most / height)
    return across * scale, height * scale


def comparison(drawing: Drawing, title: str, columns: int) -> Figure:
    """Draw one cell per method after that of the image: the heatmap above the overlay.

    Methods of several families stand in groups with their names; controls come last.
    """
    cells = [_Cell(drawing, map_) for map_ in _Map.all(drawing)]
    rows = _rows(_groups(cells), columns)
    image = pixels(drawing.view.image(drawing.view.values(drawing.image)))
    rows[0].insert(0, _Group("", (_ImageCell(image, drawing.style),)))
    count = max(sum(len(group.cells) for group in row) for row in rows)
    heights = [_height(row) for row in rows]
    width = 2 * MARGIN + count * (_CELL + _GAP) - _GAP
    sheet, top = Sheet(width, sum(heights), title), 0.0
    for row, height in zip(rows, heights, strict=True):
        _draw_cells(sheet, row, top)
        top += height
    return sheet.figure


class _Cell:
    """The heatmap of a method above its overlay, between its name and the verdict on it."""

    def __init__(self, drawing: Drawing, map_: _Map) -> None:
        self.map = map_
        self.name = wrapped(map_.name, _CELL, _CELL_NAME, bold=True)
        self.verdict, font = verdict(map_.attribution, drawing.index, _CELL, _CELL_VERDICT)
        self.colour = font["color"]
        self.size = _size(map_.heat, _CELL, _MOST)
        self.note = ""
        if map_.origin:
            self.note = wrapped(f"colours from {map_.origin:.3g}, its minimum", _CELL, _SMALL)
        self.below = text_height(self.note, _SMALL) + text_height(self.verdict, _CELL_VERDICT)

    @property
    def height(self) -> float:
        """Below the name."""
        return 2 * self.size[1] + 0.15 + self.below

    def draw(self, sheet: Sheet, left: float, top: float) -> None:
        """Draw the cell with its pictures below `top`, and its name above."""
        middle, across = left + _CELL / 2, left + (_CELL - self.size[0]) / 2
        ax = sheet.picture(across, top, self.size, self.map.heat)
        ax.set_title(self.name, **_TITLE)
        top += self.size[1] + 0.06
        sheet.picture(across, top, self.size, self.map.over)
        top += self.size[1] + 0.05
        top += sheet.text(middle, top, self.note, _SMALL, **_CENTRED)
        sheet.text(middle, top, self.verdict, _CELL_VERDICT, ha="center", color=self.colour)


class _ImageCell:
    """The image above what the colours mean."""

    name = "image"

    def __init__(self, image: Array, style: str) -> None:
        self.image, self.style = image, style
        self.size = _size(image, _CELL, _MOST)
        self.legend = wrapped(_LEGEND, _CELL, _SMALL)
        self.height = self.size[1] + text_height(self.legend, _SMALL) + 0.4

    def draw(self, sheet: Sheet, left: float, top: float) -> None:
        """Draw the cell as those of methods."""
        ax = sheet.picture(left + (_CELL - self.size[0]) / 2, top, self.size, self.image)
        ax.set_title(self.name, **_TITLE)
        top += self.size[1] + 0.12
        sheet.colour_bar(left, top, _CELL, self.style, _words(self.style))
        sheet.text(left, top + 0.2, self.legend, _SMALL, color=GREY)


class _Group(NamedTuple):
    """Cells below one heading."""

    heading: str
    cells: Sequence[_Cell | _ImageCell]


def _groups(cells: Sequence[_Cell]) -> list[_Group]:
    """Return the cells by family in order of appearance, controls last; without names if one."""
    families = list(dict.fromkeys(cell.map.family for cell in cells))
    families.sort(key="control".__eq__)
    if len(families) == 1:
        return [_Group("", cells)]
    return [
        _Group(_CONTROLS if family == "control" else family or "other", members)
        for family in families
        for members in [[cell for cell in cells if cell.map.family == family]]
    ]


def _rows(groups: Sequence[_Group], columns: int) -> list[list[_Group]]:
    """Return the groups in rows of so many cells; the first has one less, for the image.

    A group that does not fit what is left of a row begins the next one, unless nobody else would
    fill the place.
    """
    rows: list[list[_Group]] = [[]]
    free = max(columns - 1, 1)
    for heading, cells in groups:
        rest = list(cells)
        if len(rest) > free and len(rest) <= columns and free < columns:
            rows.append([])
            free = columns
        while rest:
            if not free:
                rows.append([])
                free = columns
            rows[-1].append(_Group(heading, rest[:free]))
            free, rest = free - len(rest[:free]), rest[free:]
    return rows


def _heading_height(row: Sequence[_Group]) -> float:
    headings = [wrapped(heading, len(cells) * _CELL, _HEADING) for heading, cells in row]
    return max(text_height(heading, _HEADING) for heading in headings) + 0.1


def _names_height(row: Sequence[_Group]) -> float:
    names = [cell.name for group in row for cell in group.cells]
    return max(text_height(name, _CELL_NAME) for name in names) + 0.05


def _height(row: Sequence[_Group]) -> float:
    """Return the height of a row with its headings and the space below it."""
    cells = max(cell.height for group in row for cell in group.cells)
    return _heading_height(row) + _names_height(row) + cells + 0.2


def _draw_cells(sheet: Sheet, row: Sequence[_Group], top: float) -> None:
    """Draw a row of groups below `top`."""
    left, below = MARGIN, top + _heading_height(row)
    for heading, cells in row:
        width = len(cells) * (_CELL + _GAP) - _GAP
        if heading:
            shown = wrapped(heading, len(cells) * _CELL, _HEADING)
            sheet.text(left, top, shown, _HEADING, color=GREY)
            sheet.rule(left, below - 0.05, width)
        for cell in cells:
            cell.draw(sheet, left, below + _names_height(row))
            left += _CELL + _GAP

"""Boxes of objects from a table: one row for each box."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Collection, Mapping
from pathlib import Path

from ..._ops.tensor_files import check_regular
from ...errors import UnilensError, require
from ..data.labels import FILE_COLUMNS
from .marks import Box

_NOT_TEXT = "it is not a table in UTF-8"
SIDES = (
    ("left", "xmin", "x1"),
    ("top", "ymin", "y1"),
    ("right", "xmax", "x2"),
    ("bottom", "ymax", "y2"),
)
"""Names of the columns, in pixels of the photograph."""


def read_boxes(path: Path, names: Collection[str]) -> dict[str, list[Box]]:
    """Return the boxes of photographs by their names, from a CSV.

    Args:
        path: of the table, with a column for the file and one for each side of the box; a
            photograph may have several rows.
        names: of the photographs; rows of others are left out.

    Raises:
        UnilensError: the table cannot be read, a column is missing, a side is no number, a box is
            empty, or no row is of these photographs.
    """
    try:
        check_regular(path)
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else _NOT_TEXT
        raise UnilensError(f"could not read the boxes {path}: {reason}") from error
    header = [column.strip().casefold() for column in (rows[0] if rows else {}) if column]
    named = _column(path, header, FILE_COLUMNS)
    sides = [_column(path, header, choices) for choices in SIDES]
    boxes: dict[str, list[Box]] = {}
    for line, given in enumerate(rows, start=2):
        row = {(key or "").strip().casefold(): value for key, value in given.items()}
        name = posixpath.normpath(str(row[named]).strip())
        if name in names:
            boxes.setdefault(name, []).append(_box(f"{path}, line {line}", row, sides))
    require(
        bool(boxes),
        f"expected the column {named!r} of {path} to name photographs of the folder, such as "
        f"{min(names)}; none of its rows does",
    )
    return boxes


def _column(path: Path, header: list[str], choices: tuple[str, ...]) -> str:
    found = next((choice for choice in choices if choice in header), None)
    if found is None:
        raise UnilensError(
            f"expected a column {choices[0]} in {path} (file, left, top, right, bottom, in pixels "
            f"of the photograph), got {', '.join(header) or 'an empty table'}"
        )
    return found


def _box(where: str, row: Mapping[str, str], sides: list[str]) -> Box:
    try:
        left, top, right, bottom = (round(float(row[side])) for side in sides)
    except (TypeError, ValueError, OverflowError):
        given = ", ".join(str(row[side]) for side in sides)
        raise UnilensError(f"expected four numbers of pixels in {where}, got {given}") from None
    require(
        left < right and top < bottom,
        f"expected left < right and top < bottom in {where}, got {left}, {top}, {right}, {bottom}",
    )
    return left, top, right, bottom

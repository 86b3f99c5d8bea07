"""The matrix of a generated text as a table of HTML, its cells in colour."""

from __future__ import annotations

from .units import UnitMatrix

MAX_CELLS = 40_000
"""Of a table: 64 generated tokens by 512 + 64 sources are 37 thousand, and 0.8 megabytes."""
LEVELS = 20
"""Steps of colours: the classes of CSS p1 to p20 and n1 to n20."""
_MAX_NUMBERS = 400
"""Cells of a table that holds its numbers; in larger ones they appear under the pointer."""
_LONGEST = 24
"""Characters of a heading; the whole one appears under the pointer."""


def heatmap(matrix: UnitMatrix) -> str:
    """Return the rows and columns that have a number; empty where they would be too many."""
    rows, columns = matrix.defined_rows, matrix.defined_columns
    if len(rows) * len(columns) > MAX_CELLS:
        return ""
    has_numbers = len(rows) * len(columns) <= _MAX_NUMBERS
    heads = "".join(
        f"<th{' class=g' * (column >= matrix.n_prompt)}{_heading(matrix.columns.labels[column])}"
        for column in columns
    )
    scale, body = matrix.scale, []
    for row in rows:
        values = matrix.values[row, columns].tolist()
        cells = "".join(_cell(value, scale, has_numbers) for value in values)
        body.append(f"<tr><th data-row={row}{_heading(matrix.row_label(row))}{cells}</tr>")
    return f"<table><thead><tr><td></td>{heads}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def colour_class(value: float, scale: float) -> str:
    """Return the class of CSS of a value's colour; empty for white."""
    level = round(LEVELS * min(abs(value) / scale, 1)) if scale > 0 and value == value else 0
    return f"{'p' if value > 0 else 'n'}{level}" if level else ""


def _heading(label: str) -> str:
    """Return what follows `<th`: the label in full for the pointer, and cut."""
    from markupsafe import escape

    cut = label if len(label) <= _LONGEST else f"{label[: _LONGEST - 1]}…"
    return f' title="{escape(label)}">{escape(cut)}</th>'


def _cell(value: float, scale: float, has_number: bool) -> str:
    if value != value:
        return "<td>"
    colour = colour_class(value, scale)
    start = f"<td class={colour}" if colour else "<td"
    return f"{start}>{number(value, scale)}" if has_number else f"{start} title={value:+.2g}>"


def number(value: float, scale: float) -> str:
    """Return a number with the digits that the largest of its matrix needs."""
    return f"{value:+z.2f}" if 0.05 <= scale < 10_000 else f"{value:+z.1e}"

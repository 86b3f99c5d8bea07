"""The rows that a table's rows are compared with."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

from ..errors import require
from ..methods.defaults import FEWEST_ROWS
from .frame import Table
from .reading import positions, read

_MOST_REFERENCES = 30
"""Of rows of the call; those of the user may be as many as `_MOST_GIVEN`."""
_MOST_GIVEN = 100


def matching(references: Any, table: Table, named: bool) -> Table:
    """Return the references with the columns of the frame, matched by name where both have some.

    Args:
        references: of the user.
        table: the frame.
        named: whether the names of its columns are the user's or the model's.
    """
    others = read(references, "references")
    if named and hasattr(others.data, "columns"):
        others = others.select(positions(others.names, table.names, "references", "the frame"))
    require(
        len(others.names) == len(table.names),
        f"expected references with {len(table.names)} columns, as the frame has, got "
        f"{len(others.names)}",
    )
    if type(others) is not type(table):
        columns = {name: others.column(index) for index, name in enumerate(table.names)}
        others = read(table.like(columns), "references", table.names)
    return dataclasses.replace(others, names=table.names)


def references_of(rows: Table, given: Table | None) -> tuple[Table, str, bool]:
    """Return the references, what they are, and whether they are any better than zeros."""
    if given is not None:
        index = evenly(len(given), _MOST_GIVEN)
        some = f"{len(index)} of {len(given)}" if len(index) < len(given) else str(len(given))
        return given.take(index), f"{some} references given", True
    if len(rows) < FEWEST_ROWS:
        return rows.zeros(), "a row of zeros, since there are no references", False
    index = evenly(len(rows))
    return rows.take(index), f"{len(index)} rows of this call", True


def evenly(count: int, most: int = _MOST_REFERENCES) -> list[int]:
    """Return at most so many numbers below `count`, evenly spaced."""
    return numpy.linspace(0, count - 1, min(count, most)).round().astype(int).tolist()

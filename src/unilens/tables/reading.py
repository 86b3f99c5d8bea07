"""What a user passes as a table, read and checked; and columns found by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy
import torch
from torch import Tensor

from .._validation.arrays import Array, is_array, is_missing, to_array
from ..errors import UnilensError, require
from .frame import ArrayTable, PandasTable, PolarsTable, Table, TensorTable, pandas_for

_LISTS = (list, tuple, dict, set, numpy.ndarray, Tensor)


def read(given: Any, what: str = "frame", names: Sequence[str] | None = None) -> Table:
    """Return what a user passes as a table.

    Args:
        given: a frame of pandas or polars, an array, a tensor, a list of rows, or a list of
            dictionaries.
        what: the argument, for messages.
        names: of the columns of what has none.

    Raises:
        UnilensError: it is no table, it is empty, or its columns have no or ambiguous names.
    """
    if isinstance(given, Table):
        return given
    table = _read(given, what, names)
    require(
        len(table) > 0 and len(table.names) > 0,
        f"expected {what} with at least one row and one column, got {len(table)} rows and "
        f"{len(table.names)} columns; check how it was selected",
    )
    repeated = sorted({name for name in table.names if table.names.count(name) > 1})
    require(
        not repeated,
        f"expected {what} with a name of its own for each column, got {_list(repeated)} more than "
        "once; rename them",
    )
    _check_cells(table, what)
    return table


def _read(given: Any, what: str, names: Sequence[str] | None) -> Table:
    library = type(given).__module__.partition(".")[0]
    if isinstance(given, list) and given and all(isinstance(row, Mapping) for row in given):
        keys = set(given[0])
        wrong = next((i for i, row in enumerate(given) if set(row) != keys), None)
        require(
            wrong is None,
            f"expected rows with the same keys, got others in row {wrong}: give every row a value, "
            "None where it is missing",
        )
        given, library = pandas_for("a list of dictionaries").DataFrame(given), "pandas"
    if library == "pandas" and type(given).__name__ != "Series":
        return PandasTable(given, tuple(map(str, given.columns)))
    if library == "polars" and hasattr(given, "schema") and not hasattr(given, "collect"):
        return PolarsTable(given, tuple(given.columns))
    require(
        not hasattr(given, "collect"),
        f"expected {what} in memory, got {type(given).__name__}; collect it with .collect()",
    )
    if hasattr(given, "to_pandas") and hasattr(given, "column_names"):
        return _read(given.to_pandas(), what, names)
    return _read_array(given, what, names)


def _read_array(given: Any, what: str, names: Sequence[str] | None) -> Table:
    if isinstance(given, Tensor):
        given = given.detach()
        given = given if given.layout == torch.strided else given.to_dense()
        kind: Any = TensorTable
    elif is_array(given) or isinstance(given, (list, tuple)):
        given, kind = _array(given, what), ArrayTable
    else:
        raise UnilensError(
            f"expected {what} to be a frame of pandas or polars, an array, a tensor or a list of "
            f"rows, got {type(given).__name__}"
        )
    require(
        given.ndim == 2,
        f"expected {what} of shape (rows, columns), got {tuple(given.shape)}; of one row pass "
        f"{what}[None] or {what}.iloc[[i]]",
    )
    width = given.shape[1]
    if names is None:
        names = [f"column {index}" for index in range(width)]
    require(
        len(names) == width,
        f"expected {width} names, one for each column of {what}, got {len(names)}",
    )
    return cast(Table, kind(given, tuple(map(str, names))))


def _array(given: Any, what: str) -> Array:
    """Return an array or a list of rows as an array of numbers or objects."""
    if isinstance(given, (list, tuple)):
        widths = {
            len(row) if isinstance(row, (list, tuple, numpy.ndarray)) else -1 for row in given
        }
        require(
            len(widths) < 2,
            f"expected {what} with rows of one length, got rows of lengths "
            f"{', '.join(map(str, sorted(widths)))}",
        )
        words = any(isinstance(cell, str) for row in given if -1 not in widths for cell in row)
        given = numpy.array(given, dtype=object) if words else numpy.asarray(given)
    bare = given.toarray() if hasattr(given, "toarray") else numpy.asarray(given)
    if bare.dtype.kind in "OUS" and not isinstance(given, numpy.ma.MaskedArray):
        words = any(isinstance(cell, (str, bytes)) for cell in bare.flat)
        return bare if words else to_array(what, bare)
    return to_array(what, given)


def _check_cells(table: Table, what: str) -> None:
    """Raise where a column has lists in its cells."""
    for index, name in enumerate(table.names):
        nested = next((c for c in _objects(table, index) if isinstance(c, _LISTS)), None)
        require(
            nested is None,
            f"expected one value in each cell, got a {type(nested).__name__} in column {name!r} "
            f"of {what}; make columns of them, or leave the column out",
        )


def _objects(table: Table, index: int) -> list[Any]:
    """Return the cells of a column that can hold any object; none of a column of one type."""
    if isinstance(table, PandasTable):
        kept = table.data.dtypes.iloc[index].kind == "O"
    elif isinstance(table, PolarsTable):
        dtype = table.data.dtypes[index]
        kept = dtype.is_nested() or not (dtype.is_numeric() or dtype.is_temporal())
    else:
        kept = not isinstance(table.data, Tensor) and table.data.dtype.kind == "O"
    return table.column(index) if kept else []


def positions(names: Sequence[str], expected: Sequence[Any], what: str, owner: str) -> list[int]:
    """Return where the columns of some names are.

    Args:
        names: of the table.
        expected: in this order.
        what: the table, for messages.
        owner: of the names that are expected, for messages.

    Raises:
        UnilensError: columns are missing; the message names them, and those that are too many.
    """
    index = {name: position for position, name in enumerate(names)}
    missing = [str(name) for name in expected if str(name) not in index]
    others = [name for name in names if name not in set(map(str, expected))]
    also = f"; columns that {owner} does not know: {_list(others)}" if others else ""
    require(
        not missing,
        f"expected {what} with the columns that {owner} has, missing {_list(missing)}{also}; "
        "rename or add them",
    )
    return [index[str(name)] for name in expected]


def text(cell: Any) -> str:
    """Return a cell for people: numbers with four digits, dates without an empty time."""
    if is_missing(cell):
        return "missing"
    if isinstance(cell, float):
        return f"{cell:.4g}"
    if hasattr(cell, "isoformat"):
        return str(cell.isoformat()).removesuffix("T00:00:00")
    return " ".join(str(cell).split())


def _list(names: Sequence[object]) -> str:
    """Return at most eight names for a message."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(repr(str(name)) for name in names[:8]) + more

"""What a benchmark writes down: one row per image, model, method and metric."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pyarrow

SCHEMA_VERSION = 1
"""Of the columns; a run written with another version is not resumed."""

_TEXT, _INDEX, _REAL = pyarrow.string(), pyarrow.int64(), pyarrow.float64()

SCHEMA = pyarrow.schema(
    [
        ("image", _TEXT),
        ("corruption", _TEXT),
        ("severity", pyarrow.int8()),
        ("model", _TEXT),
        ("method", _TEXT),
        ("metric", _TEXT),
        ("method_settings", _TEXT),
        ("metric_settings", _TEXT),
        ("content", _TEXT),
        ("label", _INDEX),
        ("predicted", _INDEX),
        ("target", _INDEX),
        ("confidence", _REAL),
        ("value", _REAL),
        ("status", _TEXT),
        ("reason", _TEXT),
        ("warnings", pyarrow.list_(_TEXT)),
        ("parts", pyarrow.map_(_TEXT, _REAL)),
        ("curves", pyarrow.map_(_TEXT, pyarrow.list_(_REAL))),
        ("forward", pyarrow.int32()),
        ("backward", pyarrow.int32()),
        ("seed", _INDEX),
        ("seconds", _REAL),
        ("map_seconds", _REAL),
        ("picture", pyarrow.binary()),
    ]
)
"""The columns, described in docs/benchmark.md."""

KEY = ("image", "corruption", "severity", "model", "method", "metric")
"""What tells one row from another within a run; rows are sorted by it."""

MEASURED_TIME = ("seconds", "map_seconds")
"""The columns that no two runs have in common."""

OK, UNDEFINED, INAPPLICABLE, FAILED = "ok", "undefined", "inapplicable", "failed"
"""The status of a row: it has a value; the metric has none for this map; the method or metric does
not fit (the metric of a path, for a map without one); or something went wrong."""

Row = dict[str, Any]


def table_of(rows: list[Row]) -> pyarrow.Table:
    """Return rows as a table with the columns of `SCHEMA`; what a row does not say is null."""
    return pyarrow.Table.from_pylist(rows, schema=SCHEMA)


def in_order(table: pyarrow.Table) -> pyarrow.Table:
    """Return the rows sorted by `KEY`: the order in which they came does not show."""
    return table.sort_by([(name, "ascending") for name in KEY if name in table.column_names])


def digest(tables: Iterable[pyarrow.Table]) -> str:
    """Return the SHA-256 of all that the rows say, but for the time they took.

    Two runs of one plan have the same digest where they have the same rows to the last bit,
    whatever the order, the interruptions and the engine.
    """
    hashes = sorted(_hash(row) for table in tables for row in table.to_pylist())
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def _hash(row: Row) -> bytes:
    said = {name: value for name, value in row.items() if name not in MEASURED_TIME}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=bytes.hex).encode()).digest()

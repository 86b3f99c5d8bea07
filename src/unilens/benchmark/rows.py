"""The rows of a benchmark: one per image, corruption, model, method and metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from typing import Any

import pyarrow

from ..metrics import Measurement

SCHEMA_VERSION = 1
"""Version of the columns; a run of another version is not resumed."""

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
"""The columns that identify a row within a run; rows are sorted by them."""

MEASURED_TIME = ("seconds", "map_seconds")
"""The columns that differ between any two runs."""

OK, UNDEFINED, INAPPLICABLE, FAILED = "ok", "undefined", "inapplicable", "failed"
"""The status of a row: it has a value; the metric is undefined for this map; method or metric does
not apply (the metric of a path, for a map without one); or there was an error."""

Row = dict[str, Any]
_CURVES = ("curve", "fractions", "confidence")
"""The details of a metric that are kept, by the last word of their name."""
_LONGEST_CURVE = 1001


def measurement_columns(measurement: Measurement) -> Row:
    """Return the measurement of one input as plain data."""
    value = float(measurement.values[0])
    return {
        "value": value if math.isfinite(value) else None,
        "status": OK if math.isfinite(value) else UNDEFINED,
        "reason": next(iter(measurement.reasons), "") or None,
        "parts": [
            (name, float(values[0])) for name, values in sorted(measurement.breakdown.items())
        ],
        "curves": [
            (name, values[0].double().tolist())
            for name, values in sorted(measurement.details.items())
            if name.split()[-1] in _CURVES and values[0].numel() <= _LONGEST_CURVE
        ],
    }


def table_of(rows: list[Row]) -> pyarrow.Table:
    """Return rows as a table with the columns of `SCHEMA`; missing values are null."""
    return pyarrow.Table.from_pylist(rows, schema=SCHEMA)


def in_order(table: pyarrow.Table) -> pyarrow.Table:
    """Return the rows sorted by `KEY`."""
    return table.sort_by([(name, "ascending") for name in KEY if name in table.column_names])


def digest(tables: Iterable[pyarrow.Table]) -> str:
    """Return the SHA-256 of all rows without their times.

    Two runs of a plan have the same digest if their rows are equal bit by bit, whatever the order,
    the interruptions and the engine.
    """
    hashes = sorted(_hash(row) for table in tables for row in table.to_pylist())
    return hashlib.sha256(b"".join(hashes)).hexdigest()


def _hash(row: Row) -> bytes:
    lasting = {name: value for name, value in row.items() if name not in MEASURED_TIME}
    return hashlib.sha256(json.dumps(lasting, sort_keys=True, default=bytes.hex).encode()).digest()

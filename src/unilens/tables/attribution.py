"""The result of explaining a table: named columns, in units of the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

from .._ops.fields import to_numpy
from .._validation.arrays import Array, as_number
from .._validation.settings import check_count, shown
from ..attribution import Attribution
from ..errors import require
from .frame import PandasTable, PolarsTable, Table
from .groups import Group

_ROUNDING = 1e-12
_SHOWN = 3
"""Columns that the repr names."""


class Contribution(NamedTuple):
    """What one column contributes to the score of one row.

    Attributes:
        name: of the column or the group.
        cell: what the row has there, for people.
        value: in units of the score.
        standard_error: of the value, where it is estimated by sampling; else None.
    """

    name: str
    cell: str
    value: float
    standard_error: float | None

    def __str__(self) -> str:
        value = 0.0 if abs(self.value) < _ROUNDING else self.value
        return f"{self.name} ({self.cell}) {value:+.3g}"


@dataclass(frozen=True, slots=True, eq=False)
class TableAttribution:
    """The contribution of each column to the score of each row.

    For complete methods, such as the defaults, `score - base` is the sum of a row's values.

    Attributes:
        attribution: with values `(n, G)`, the diagnostics and the provenance.
        rows: the rows explained, in the order of the columns that the model takes.
        groups: what each of the G values belongs to: a column, or several as one.
        target: `(n,)`, the classes that are explained, by the estimator's labels, or the indices of
            outputs.
        base: `(n,)`, the mean score of the references, by `ig` the score of their mean; NaN where
            the method has none.
        unit: of values, score and base.
        standard_errors: `(n, G)`, where values are estimated by sampling; else None.
    """

    attribution: Attribution
    rows: Table
    groups: tuple[Group, ...]
    target: Array
    base: Array
    unit: str
    standard_errors: Array | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns and groups, one for each value of a row."""
        return tuple(group.name for group in self.groups)

    @property
    def values(self) -> Any:
        """The values `(n, G)`, as a frame of the user's library with named columns, or an array."""
        return self._framed(self.attribution.numpy())

    @property
    def standard_error(self) -> Any:
        """The standard errors of the values in the same form; None for exact values."""
        return None if self.standard_errors is None else self._framed(self.standard_errors)

    @property
    def has_classes(self) -> bool:
        """Whether the target is a class or one of several outputs."""
        return self.attribution.outputs.shape[1] > 1 or self.unit == "probability"

    @property
    def score(self) -> Array:
        """The score `(n,)` of each row, f(x)."""
        return to_numpy(self.attribution.score)

    @property
    def provenance(self) -> Mapping[str, object]:
        """Method, settings, references and groups, and all else that is needed to repeat it."""
        return self.attribution.provenance

    @property
    def verdicts(self) -> list[str]:
        """One line for each row: whether its values can be used, and why."""
        return self.attribution.verdicts

    def __len__(self) -> int:
        return len(self.rows)

    def strongest(self, row: int = 0, count: int | None = 5) -> list[Contribution]:
        """Return the contributions of a row, the largest in absolute value first.

        Args:
            row: its number, from 0.
            count: how many; None for all.
        """
        number = as_number(row)
        require(
            type(number) is int and 0 <= number < len(self),
            f"expected row to be a number from 0 to {len(self) - 1}, got {shown(row)}",
        )
        if count is not None:
            count = check_count("count", count, least=0)
        values, own = self.attribution.values[row].tolist(), self.rows.take([row])
        errors = None if self.standard_errors is None else self.standard_errors[row].tolist()
        order = sorted(range(len(values)), key=lambda index: -abs(values[index]))
        return [
            Contribution(
                self.groups[index].name,
                self.groups[index].cells(own)[0],
                values[index],
                None if errors is None else errors[index],
            )
            for index in order[:count]
        ]

    def to_frame(self) -> Any:
        """Return a long frame: one line for each row and column, with cell, value and score.

        It is a frame of polars where the rows are one, else of pandas.

        Raises:
            UnilensError: the rows are an array, and pandas is not installed.
        """
        columns: dict[str, list[Any]] = {
            name: [] for name in ("row", "column", "cell", "value", "target", "score", "base")
        }
        if self.standard_errors is not None:
            columns["standard_error"] = []
        labels, cells = self._labels(), [group.cells(self.rows) for group in self.groups]
        score, values = self.score.tolist(), self.attribution.values.tolist()
        for row in range(len(self)):
            for index, group in enumerate(self.groups):
                entry: list[Any] = [labels[row], group.name, cells[index][row], values[row][index]]
                entry += [self.target[row], score[row], float(self.base[row])]
                if self.standard_errors is not None:
                    entry.append(float(self.standard_errors[row, index]))
                for name, value in zip(columns, entry, strict=True):
                    columns[name].append(value)
        return self.rows.frame(columns)

    def _labels(self) -> list[Any]:
        """Return the labels of the rows in a frame's index; else their numbers."""
        framed = isinstance(self.rows, PandasTable)
        return list(self.rows.data.index) if framed else list(range(len(self)))

    def _framed(self, values: Array) -> Any:
        if isinstance(self.rows, PandasTable):
            frame = self.rows.frame(dict(zip(self.names, values.T, strict=True)))
            frame.index = self.rows.data.index
            return frame
        if isinstance(self.rows, PolarsTable):
            return self.rows.frame(dict(zip(self.names, values.T, strict=True)))
        return values

    def __repr__(self) -> str:
        count = len(self)
        method = self.provenance.get("method", "an unnamed method")
        lines = [
            f"{type(self).__name__} by {method}: {count} row{'s' * (count != 1)} of "
            f"{len(self.groups)} columns, in units of the {self.unit}",
            describe_row(self, 0, _SHOWN),
            self.verdicts[0],
        ]
        lines += [str(self.provenance["default"])] if "default" in self.provenance else []
        return "\n  ".join(lines)


def describe_row(result: TableAttribution, row: int, count: int) -> str:
    """Return one line on a row: target, score, base and its strongest columns."""
    score, base = float(result.score[row]), float(result.base[row])
    label = f"{result.target[row]}, " if result.has_classes else ""
    than = "" if base != base else f" (base {base:.3g})"
    strongest: Sequence[Contribution] = result.strongest(row, count)
    return f"row {row}: {label}{result.unit} {score:.3g}{than}: {', '.join(map(str, strongest))}"


def labels(target: Sequence[Any]) -> Array:
    """Return labels as an array `(n,)`; of objects where their types differ."""
    return numpy.asarray(target)

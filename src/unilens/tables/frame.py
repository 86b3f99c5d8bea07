"""Tables of any library: named columns, and rows put together from cells of other rows.

Neither pandas nor polars is needed: a frame is recognised by the module of its class.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy
import torch
from torch import Tensor

from .._validation.arrays import Array, to_array
from ..errors import UnilensError, require

EXTRA = "run: pip install 'unilens[tables]'"


@dataclass(frozen=True, eq=False)
class Table(ABC):
    """A table of the user's, in its own type.

    Attributes:
        data: the frame, array or tensor, `(n, F)`.
        names: of its columns, as text.
    """

    data: Any
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.data)

    @abstractmethod
    def column(self, index: int) -> list[Any]:
        """Return the cells of a column as Python's objects."""

    @abstractmethod
    def gather(self, rows: Array) -> Any:
        """Return data in the same type whose cell `(i, j)` is the cell `(rows[i, j], j)`."""

    @abstractmethod
    def select(self, columns: Sequence[int]) -> Self:
        """Return the table with some columns, in this order."""

    @abstractmethod
    def join(self, other: Self) -> Self:
        """Return the rows of both tables, with the cells' types kept."""

    @abstractmethod
    def zeros(self) -> Self:
        """Return one row of zeros in the types of the columns.

        Raises:
            UnilensError: a column has no zero, such as one of words.
        """

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as a frame of pandas."""
        return pandas_for("a frame of an array").DataFrame(dict(columns))

    def like(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as data of the table's type."""
        return self.frame(columns)

    def take(self, rows: Sequence[int]) -> Self:
        """Return the table of some rows."""
        index = numpy.repeat(numpy.asarray(rows, dtype=numpy.int64)[:, None], len(self.names), 1)
        return replace(self, data=self.gather(index))

    def numbers(self) -> Tensor:
        """Return the cells as a tensor `(n, F)` of numbers; what is missing is NaN.

        Raises:
            UnilensError: a column has words or dates.
        """
        return torch.from_numpy(to_array("a table for a module", self.data).astype(numpy.float64))


class ArrayTable(Table):
    """A table in an array of NumPy."""

    def like(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as an array."""
        cells = list(columns.values())
        return numpy.array(cells, dtype=object if self.data.dtype.kind == "O" else None).T

    def column(self, index: int) -> list[Any]:
        """Return the cells of a column as Python's objects."""
        return cast(list[Any], self.data[:, index].tolist())

    def gather(self, rows: Array) -> Any:
        """Return the cells `(rows[i, j], j)` in the same type."""
        return self.data[rows, numpy.arange(len(self.names))]

    def select(self, columns: Sequence[int]) -> Self:
        """Return the table with some columns, in this order."""
        return replace(self, data=self.data[:, list(columns)], names=_at(self.names, columns))

    def join(self, other: Self) -> Self:
        """Return the rows of both tables."""
        return replace(self, data=numpy.concatenate([self.data, other.data]))

    def zeros(self) -> Self:
        """Return one row of zeros in the type of the array."""
        if self.data.dtype.kind not in "biuf":
            raise UnilensError(_NO_ZERO.format("this array of objects"))
        return replace(self, data=numpy.zeros_like(self.data[:1]))


class TensorTable(ArrayTable):
    """A table in a tensor."""

    def like(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as a tensor."""
        values = torch.tensor(list(columns.values())).T
        both = values.is_floating_point() and self.data.is_floating_point()
        return values.to(self.data.device, self.data.dtype if both else values.dtype)

    def gather(self, rows: Array) -> Any:
        """Return the cells `(rows[i, j], j)` as a tensor."""
        index = torch.from_numpy(rows).to(self.data.device)
        return self.data.gather(0, index)

    def join(self, other: Self) -> Self:
        """Return the rows of both tables."""
        return replace(self, data=torch.cat([self.data, other.data.to(self.data.device)]))

    def zeros(self) -> Self:
        """Return one row of zeros."""
        return replace(self, data=torch.zeros_like(self.data[:1]))

    def numbers(self) -> Tensor:
        """Return the tensor."""
        return cast(Tensor, self.data)


class PandasTable(Table):
    """A table in a frame of pandas; the types of its columns are kept."""

    def column(self, index: int) -> list[Any]:
        """Return the cells of a column as Python's objects."""
        return cast(list[Any], self.data.iloc[:, index].tolist())

    def gather(self, rows: Array) -> Any:
        """Return the cells `(rows[i, j], j)` as a frame with the columns' types."""
        kind = type(self.data)
        dtypes = set(self.data.dtypes)
        if len(dtypes) == 1 and isinstance(next(iter(dtypes)), numpy.dtype):
            cells = self.data.to_numpy()[rows, numpy.arange(len(self.names))]
            dtype = next(iter(dtypes))  # or pandas takes objects for words, and None for NaN
            return kind(cells, columns=self.data.columns, dtype=dtype, copy=False)
        series = sys.modules["pandas"].Series
        columns = {
            index: series(self.data.iloc[:, index].array.take(rows[:, index]), dtype=dtype)
            for index, dtype in enumerate(self.data.dtypes)
        }
        frame = kind(columns, copy=False)
        frame.columns = self.data.columns
        return frame

    def select(self, columns: Sequence[int]) -> Self:
        """Return the table with some columns, in this order."""
        return replace(self, data=self.data.iloc[:, list(columns)], names=_at(self.names, columns))

    def join(self, other: Self) -> Self:
        """Return the rows of both tables; categories of either are categories of the column."""
        pandas = sys.modules["pandas"]
        mine, yours = self.data.copy(), other.data.copy()
        for index, (name, dtype) in enumerate(zip(self.names, mine.dtypes, strict=True)):
            theirs = yours.dtypes.iloc[index]
            if dtype != theirs and "category" in (str(dtype), str(theirs)):
                require(
                    str(dtype) == str(theirs) and not dtype.ordered,
                    f"expected the references' column {name!r} of the type {dtype}, got {theirs}; "
                    "convert it, as by references.astype(frame.dtypes)",
                )
                categories = dtype.categories.union(theirs.categories, sort=False)
                united = pandas.CategoricalDtype(categories)
                for frame in (mine, yours):
                    frame.isetitem(index, frame.iloc[:, index].astype(united))
        yours.columns = mine.columns
        return replace(self, data=pandas.concat([mine, yours], ignore_index=True))

    def zeros(self) -> Self:
        """Return one row of zeros in the types of the columns."""
        kinds = sys.modules["pandas"].api.types
        frame = self.data.iloc[:1].copy()
        for index, (name, dtype) in enumerate(zip(self.names, frame.dtypes, strict=True)):
            if not (kinds.is_numeric_dtype(dtype) or kinds.is_bool_dtype(dtype)):
                raise UnilensError(_NO_ZERO.format(f"column {name!r}"))
            zero = sys.modules["pandas"].Series([0], index=frame.index).astype(dtype)
            frame.isetitem(index, zero)
        return replace(self, data=frame)

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as a frame of pandas."""
        return sys.modules["pandas"].DataFrame(dict(columns))


class PolarsTable(Table):
    """A table in a frame of polars; the types of its columns are kept."""

    def column(self, index: int) -> list[Any]:
        """Return the cells of a column as Python's objects."""
        return cast(list[Any], self.data.to_series(index).to_list())

    def gather(self, rows: Array) -> Any:
        """Return the cells `(rows[i, j], j)` as a frame with the columns' types."""
        columns = [self.data.to_series(index).gather(rows[:, index]) for index in self._indices]
        return type(self.data)(columns)

    @property
    def _indices(self) -> range:
        return range(len(self.names))

    def select(self, columns: Sequence[int]) -> Self:
        """Return the table with some columns, in this order."""
        names = _at(self.names, columns)
        return replace(self, data=self.data.select(names), names=names)

    def join(self, other: Self) -> Self:
        """Return the rows of both tables."""
        theirs = other.data.rename(dict(zip(other.names, self.names, strict=True)))
        polars = sys.modules["polars"]
        try:
            return replace(self, data=polars.concat([self.data, theirs], how="vertical_relaxed"))
        except polars.exceptions.PolarsError as error:
            raise UnilensError(
                "expected references with the types of the frame's columns, got "
                f"{str(error).splitlines()[0]}; convert them, as by references.cast(frame.schema)"
            ) from error

    def zeros(self) -> Self:
        """Return one row of zeros in the types of the columns."""
        polars = sys.modules["polars"]
        columns = []
        for name, dtype in self.data.schema.items():
            if not (dtype.is_numeric() or dtype == polars.Boolean):
                raise UnilensError(_NO_ZERO.format(f"column {name!r}"))
            columns.append(polars.Series(name, [0]).cast(dtype))
        return replace(self, data=type(self.data)(columns))

    def frame(self, columns: Mapping[str, Sequence[Any]]) -> Any:
        """Return columns as a frame of polars."""
        return sys.modules["polars"].DataFrame(
            [sys.modules["polars"].Series(name, list(cells)) for name, cells in columns.items()]
        )


_NO_ZERO = (
    "expected references= or at least 10 rows, since {} has no zero to compare with; pass typical "
    "rows, such as those of the training data"
)


def pandas_for(purpose: str) -> Any:
    """Return the module pandas; raise where it is not installed."""
    try:
        import pandas
    except ModuleNotFoundError:
        raise UnilensError(f"{purpose} needs pandas; {EXTRA}") from None
    return pandas


def _at(names: tuple[str, ...], columns: Sequence[int]) -> tuple[str, ...]:
    return tuple(names[index] for index in columns)

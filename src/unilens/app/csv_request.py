"""What the tabs of tables and series may request, without the file."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from ..errors import UnknownNameError
from ..methods import methods
from .request import MAX_NAME_LENGTH, validated, whole

Index = Annotated[StrictInt, Field(ge=0, lt=2**31)]


class CsvRequest(BaseModel):
    """What the requests of both tabs have.

    Attributes:
        method: a name; None for the default.
        target: index of the class to explain; None for the predicted one.
        seed: of everything random.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: Annotated[StrictStr, Field(max_length=MAX_NAME_LENGTH)] | None = None
    target: Index | None = None
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] = 0

    def check(self, offered: list[str]) -> None:
        """Raise unless the method is among those offered."""
        if self.method is None:
            return
        methods[self.method]
        if self.method not in offered:
            raise UnknownNameError("method for this model", self.method, offered)


class TableRequest(CsvRequest):
    """What to explain about a table.

    Attributes:
        rows: numbers and ranges, such as "0,5-9".
    """

    rows: Annotated[StrictStr, Field(max_length=200)] = "0"


class SeriesRequest(CsvRequest):
    """What to explain about a series.

    Attributes:
        time_column: name of the column that is left out; None for none.
        step: of the forecast.
        series: of the forecast.
    """

    time_column: Annotated[StrictStr, Field(max_length=1000)] | None = None
    step: Index = 0
    series: Index = 0


def read_table_form(rows: Any, target: Any, method: Any, seed: Any) -> TableRequest:
    """Return the request in the form of the tab of tables."""
    values = {**_shared(target, method, seed), "rows": "0" if rows is None else rows}
    return validated(TableRequest, values)


def read_series_form(
    time_column: Any, target: Any, step: Any, series: Any, method: Any, seed: Any
) -> SeriesRequest:
    """Return the request in the form of the tab of series."""
    numbers = {"step": whole(step or 0), "series": whole(series or 0)}
    values = {**_shared(target, method, seed), **numbers, "time_column": time_column or None}
    return validated(SeriesRequest, values)


def _shared(target: Any, method: Any, seed: Any) -> dict[str, Any]:
    """Return the values that both forms have; -1 is the predicted class, "" the default method."""
    return {
        "target": None if target is None or target == -1 else whole(target),
        "method": method or None,
        "seed": 0 if seed is None else whole(seed),
    }

"""The rows of a run, grouped by DuckDB: values, costs, curves and errors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import numpy

from ..plan import Plan
from .statistics import Array, Family

_GATHERED = """
CREATE VIEW valued AS SELECT * FROM planned WHERE status = 'ok' AND isfinite(value);
CREATE TABLE numbered AS
SELECT image, (row_number() OVER (ORDER BY image) - 1)::INTEGER AS number
FROM (SELECT DISTINCT image FROM planned);
CREATE TABLE cells AS
SELECT *, (row_number() OVER (ORDER BY corruption, severity, model, metric, method))::INTEGER cell
FROM (
    SELECT corruption, severity, model, metric, method,
        count(*) FILTER (
            status = 'undefined' OR status = 'ok' AND NOT coalesce(isfinite(value), false)
        ) AS undefined,
        count(*) FILTER (status = 'inapplicable') AS inapplicable,
        count(*) FILTER (status = 'failed') AS failed
    FROM planned GROUP BY ALL
);
CREATE TABLE measured AS
SELECT cell, number, value
FROM valued JOIN cells USING (corruption, severity, model, metric, method)
JOIN numbered USING (image);
"""
"""The rows, read once: numbers replace names, so that millions fit into memory."""

_COSTS = """
SELECT model, method, count(*), median(seconds), median(forward), median(backward)
FROM (
    SELECT model, method, any_value(map_seconds) AS seconds, any_value(forward) AS forward,
        any_value(backward) AS backward
    FROM planned WHERE map_seconds IS NOT NULL
    GROUP BY image, corruption, severity, model, method
)
GROUP BY model, method
"""
_ACCURACY = """
SELECT corruption, severity, model, count(*), avg((label = predicted)::DOUBLE)
FROM (
    SELECT DISTINCT image, corruption, severity, model, label, predicted
    FROM planned WHERE label IS NOT NULL AND predicted IS NOT NULL
)
GROUP BY ALL
"""
_REASONS = """
SELECT status, coalesce(reason, 'no reason given'), count(*), list_sort(list(DISTINCT model)),
    list_sort(list(DISTINCT method)), list_sort(list(DISTINCT metric))
FROM planned WHERE status <> 'ok' OR NOT coalesce(isfinite(value), false)
GROUP BY ALL ORDER BY status, 3 DESC, 2
"""
_WARNINGS = """
SELECT model, method, warning, count(*)
FROM (
    SELECT DISTINCT image, corruption, severity, model, method, unnest(warnings) AS warning
    FROM planned
)
GROUP BY ALL ORDER BY 4 DESC, 1, 2, 3
"""
_PARTS = """
SELECT model, metric, method, part.key, count(*), avg(part.value)
FROM (
    SELECT model, metric, method, unnest(map_entries(parts)) AS part
    FROM valued WHERE corruption = ? AND severity = ?
)
WHERE isfinite(part.value) GROUP BY ALL ORDER BY ALL
"""
_CURVES = """
WITH entries AS (
    SELECT method, unnest(map_entries(curves)) AS entry
    FROM valued WHERE corruption = ? AND severity = ? AND model = ? AND metric = ?
), points AS (
    SELECT method, entry.key AS name, unnest(entry.value) AS y,
        generate_subscripts(entry.value, 1) AS place
    FROM entries
), means AS (
    SELECT method, name, place, count(y) AS n, avg(y) AS mean,
        quantile_cont(y, 0.25) AS low, quantile_cont(y, 0.75) AS high
    FROM points WHERE isfinite(y) GROUP BY ALL
)
SELECT method, name, max(n), list(mean ORDER BY place), list(low ORDER BY place),
    list(high ORDER BY place)
FROM means GROUP BY method, name ORDER BY method, name
"""
_GALLERY = """
SELECT model, method, image, value
FROM valued SEMI JOIN (
    SELECT image, corruption, severity, model, method FROM planned WHERE picture IS NOT NULL
) AS pictured USING (image, corruption, severity, model, method)
WHERE corruption = ? AND severity = ? AND metric = ?
ORDER BY model, method, value, image
"""
_PICTURES = """
SELECT model, method, image, picture
FROM planned
WHERE corruption = ? AND severity = ? AND picture IS NOT NULL AND (model, method, image) IN (
    SELECT (unnest(?::VARCHAR[]), unnest(?::VARCHAR[]), unnest(?::VARCHAR[]))
)
"""
_SETTINGS = {
    "method": "SELECT DISTINCT method, method_settings FROM planned "
    "WHERE method_settings IS NOT NULL ORDER BY ALL",
    "metric": "SELECT DISTINCT metric, metric_settings FROM planned "
    "WHERE metric_settings IS NOT NULL ORDER BY ALL",
}


@dataclass(frozen=True, slots=True)
class MapGroup:
    """The maps of a model and method.

    Attributes:
        model: by name.
        method: by name in the plan.
    """

    model: str
    method: str


@dataclass(frozen=True, slots=True)
class MapCost(MapGroup):
    """The cost of one map: medians over the maps of a model and method.

    Attributes:
        maps: their number.
        seconds: per map.
        forward: passes per map.
        backward: passes per map.
    """

    maps: int
    seconds: float | None
    forward: float | None
    backward: float | None


@dataclass(frozen=True, slots=True)
class MeanCurve:
    """A mean curve over the images, with the middle half of them.

    Attributes:
        model: by name.
        metric: by name in the plan.
        method: by name in the plan.
        name: of the curve in the rows.
        n: number of curves.
        x: from 0 to 1.
        mean: over the images.
        low: the first quartile.
        high: the third quartile.
    """

    model: str
    metric: str
    method: str
    name: str
    n: int
    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]


def _planned(plan: Plan) -> str:
    """Return SQL for the view of the rows that the plan asks for: edited runs may have others."""

    def listed(names: Sequence[str]) -> str:
        return ", ".join("'" + name.replace("'", "''") + "'" for name in names)

    return (
        "CREATE VIEW planned AS SELECT * FROM rows "  # noqa: S608 - quoted
        f"WHERE model IN ({listed(plan.models)}) AND method IN ({listed(plan.methods)}) "
        f"AND metric IN ({listed(plan.metrics)});\n"
    )


class Cells:
    """The rows of one run, read once and grouped.

    Args:
        connection: with a view `rows`.
        plan: of the run, whose order of models, methods and metrics is kept.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, plan: Plan) -> None:
        self._connection, self._plan = connection, plan
        connection.execute(_planned(plan) + _GATHERED)

    @property
    def conditions(self) -> list[tuple[str, int]]:
        """The corruptions with their severities, none first."""
        return self._all("SELECT DISTINCT corruption, severity FROM cells ORDER BY ALL")

    def count(self) -> dict[str, int]:
        """Return the number of rows by status."""
        return dict(self._all("SELECT status, count(*) FROM planned GROUP BY ALL ORDER BY 2 DESC"))

    def images(self) -> int:
        """Return the number of images."""
        return int(self._all("SELECT count(*) FROM numbered")[0][0])

    def families(self) -> Iterator[Family]:
        """Yield the values by condition, model and metric; columns as in the plan."""
        for corruption, severity in self.conditions:
            for model in self._plan.models:
                for metric in self._plan.metrics:
                    family = self.family(corruption, severity, model, metric)
                    if family is not None:
                        yield family

    def family(self, corruption: str, severity: int, model: str, metric: str) -> Family | None:
        """Return the values of all methods, or None without rows."""
        rows = self._all(
            "SELECT method, cell, undefined, inapplicable, failed FROM cells "
            "WHERE corruption = ? AND severity = ? AND model = ? AND metric = ?",
            corruption,
            severity,
            model,
            metric,
        )
        by_method = {method: rest for method, *rest in rows}
        methods = tuple(method for method in self._plan.methods if method in by_method)
        if not methods:
            return None
        cells, undefined, inapplicable, failed = zip(
            *(by_method[method] for method in methods), strict=True
        )
        return Family(
            corruption=corruption,
            severity=severity,
            model=model,
            metric=metric,
            methods=methods,
            values=self._values(cells),
            undefined=undefined,
            inapplicable=inapplicable,
            failed=failed,
        )

    def costs(self) -> list[MapCost]:
        """Return the costs of maps by model and method."""
        costs = {
            (model, method): MapCost(model, method, *rest)
            for model, method, *rest in self._all(_COSTS)
        }
        keys = itertools.product(self._plan.models, self._plan.methods)
        return [costs[key] for key in keys if key in costs]

    def metric_seconds(self) -> dict[str, float]:
        """Return the median seconds per map of each metric."""
        return dict(
            self._all(
                "SELECT metric, median(seconds) FROM planned WHERE seconds IS NOT NULL "
                "GROUP BY metric ORDER BY metric"
            )
        )

    def accuracy(self) -> list[tuple[str, int, str, int, float]]:
        """Return corruption, severity, model, number of labelled images and accuracy."""
        models = self._plan.models
        return sorted(self._all(_ACCURACY), key=lambda row: (*row[:2], models.index(row[2])))

    def reasons(self) -> list[tuple[str, str, int, list[str], list[str], list[str]]]:
        """Return status, reason, count, models, methods and metrics of rows without a value."""
        return self._all(_REASONS)

    def warnings(self) -> list[tuple[str, str, str, int]]:
        """Return model, method, warning and number of maps."""
        return self._all(_WARNINGS)

    def parts(self, corruption: str, severity: int) -> list[tuple[str, str, str, str, int, float]]:
        """Return model, metric, method, part, number of images, and mean."""
        return self._all(_PARTS, corruption, severity)

    def curves(self, corruption: str, severity: int) -> list[MeanCurve]:
        """Return the mean curves that have fractions for x, in the plan's order."""
        return [
            curve
            for metric in self._plan.metrics
            for model in self._plan.models
            for curve in self._curves(corruption, severity, model, metric)
        ]

    def _curves(
        self, corruption: str, severity: int, model: str, metric: str
    ) -> Iterator[MeanCurve]:
        rows = self._all(_CURVES, corruption, severity, model, metric)
        curves = {(method, name): rest for method, name, *rest in rows}
        for (method, name), (n, mean, low, high) in curves.items():
            over = curves.get((method, _over(name)))
            if over is not None and name != _over(name) and len(over[1]) == len(mean):
                yield MeanCurve(model, metric, method, name, n, over[1], mean, low, high)

    def gallery(
        self, corruption: str, severity: int, metric: str
    ) -> list[tuple[str, str, str, float]]:
        """Return model, method, image and value of maps with thumbnails, lowest value first."""
        return self._all(_GALLERY, corruption, severity, metric)

    def pictures(
        self, corruption: str, severity: int, keys: Sequence[tuple[str, str, str]]
    ) -> dict[tuple[str, str, str], bytes]:
        """Return the thumbnails of maps by model, method and image."""
        columns = [list(column) for column in zip(*keys, strict=True)]
        rows = self._all(_PICTURES, corruption, severity, *columns)
        return {(model, method, image): bytes(data) for model, method, image, data in rows}

    def settings(self, kind: str) -> list[tuple[str, str]]:
        """Return all settings as JSON by name; `kind` is `method` or `metric`."""
        return self._all(_SETTINGS[kind])

    def _values(self, cells: Sequence[int]) -> Array:
        """Return the values of cells as columns over all images of the run."""
        rows = self._connection.execute(
            "SELECT cell, number, value FROM measured WHERE cell IN (SELECT unnest(?::INTEGER[]))",
            [list(cells)],
        ).fetchnumpy()
        order = numpy.argsort(cells)
        columns = order[numpy.searchsorted(numpy.sort(cells), numpy.asarray(rows["cell"]))]
        values = numpy.full((self.images(), len(cells)), numpy.nan)
        values[numpy.asarray(rows["number"]), columns] = numpy.asarray(rows["value"])
        return values

    def _all(self, sql: str, *parameters: Any) -> list[Any]:
        return self._connection.execute(sql, list(parameters)).fetchall()


def _over(name: str) -> str:
    """Return the name of a curve's x values: `blur curve` has `blur fractions`."""
    prefix = name.rpartition(" ")[0]
    return f"{prefix} fractions" if prefix else "fractions"

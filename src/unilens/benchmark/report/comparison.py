"""`unilens report RUN_A RUN_B`: the differences of two runs, image by image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy

from ...errors import require
from ..plan import Plan
from ..rows import KEY, MEASURED_TIME, SCHEMA
from ..store import Store
from . import tables
from .pages import condition, render, write_all
from .queries import opened
from .statistics import LEVEL, RESAMPLES, Array, Family, Pair, Summary, analyse, holm

FILES = ("comparison.html", "comparison.csv")
"""What `write_comparison` writes."""
_CAVEATS = {
    "seed": "random numbers differ",
    "dtype": "rounding differs",
    "target": "other classes are explained",
    "settings": "settings of the methods differ",
    "random_weights": "the models differ",
    "data.source": "the images may differ",
    "data.labels": "the labels may differ",
    "data.split": "the images may differ",
    "data.limit": "the images may differ",
    "data.corruptions": "the corruptions differ",
    "data.clean": "only one has the uncorrupted images",
}
"""The settings of a plan that make two runs hard to compare, and the reason."""
_RESOLVED = ("method", "metric")
_MAX_NAMED = 10
_PAIRED = """
CREATE TABLE cells AS
SELECT *, (row_number() OVER (ORDER BY corruption, severity, model, metric, method))::INTEGER cell
FROM (
    SELECT corruption, severity, model, metric, method,
        count(*) FILTER (status = 'ok' AND isfinite(value)) AS n_a
    FROM a GROUP BY ALL
) SEMI JOIN b USING (corruption, severity, model, metric, method);
CREATE TABLE paired AS
SELECT cell, image, one.value AS a, other.value AS b
FROM (SELECT * FROM a WHERE status = 'ok' AND isfinite(value)) AS one
JOIN (SELECT * FROM b WHERE status = 'ok' AND isfinite(value)) AS other
USING (image, corruption, severity, model, method, metric)
JOIN cells USING (corruption, severity, model, metric, method);
"""
_SHARED = """
SELECT corruption, severity, model, metric, method, any_value(cell), any_value(n_a),
    count(*) FILTER (status = 'ok' AND isfinite(value))
FROM b JOIN cells USING (corruption, severity, model, metric, method) GROUP BY ALL
"""
COLUMNS = (
    *("corruption", "severity", "model", "metric", "higher_is_better", "method", "n_a", "n_b"),
    *("n", "mean_a", "mean_b", "mean_difference", "interval_low", "interval_high"),
    *("rank_biserial", "p", "p_holm", "significant"),
)


@dataclass(frozen=True, slots=True)
class _Difference:
    """One method under one metric and model in both runs, over the images they share.

    Attributes:
        cell: corruption, severity, model, metric and method.
        higher_is_better: of the metric.
        n_a: images with a value in the first run.
        n_b: in the second.
        a: statistics of the first run, over the shared images.
        b: of the second.
        pair: the second run against the first.
    """

    cell: tuple[str, int, str, str, str]
    higher_is_better: bool | None
    n_a: int
    n_b: int
    a: Summary
    b: Summary
    pair: Pair


def write_comparison(first: Store, second: Store, folder: Path) -> list[Path]:
    """Write the differences of two runs; an existing comparison is replaced.

    Args:
        first: run A.
        second: run B; differences are B - A.
        folder: to write to; created where it does not exist.

    Returns:
        The files: `FILES`.

    Raises:
        UnilensError: a run has no rows, they cannot be read, or the folder cannot be written.
    """
    with opened(a=first, b=second) as connection:
        counts = _counts(connection)
        for name, store in (("a", first), ("b", second)):
            require(bool(counts[name]), f"expected rows in {store.folder}, got none yet")
        differences = list(_differences(connection, second.plan))
        context = {
            "names": (first.folder.resolve().name, second.folder.resolve().name),
            "folders": (str(first.folder), str(second.folder)),
            "rows": _rows(connection),
            "only": _only(connection),
            "settings": _settings(first, second, connection),
            "doubts": _doubts(first.plan, second.plan)
            + _other_contents(connection)
            + [store.remark for store in (first, second) if store.remark],
            "groups": _grouped(differences),
            "level": round(LEVEL * 100),
            "resamples": RESAMPLES,
        }
    texts = {
        "comparison.html": render("comparison.html", context),
        "comparison.csv": tables.as_csv(
            COLUMNS, [_csv_row(difference) for difference in differences]
        ),
    }
    return write_all(folder, texts)


def _doubts(first: Plan, second: Plan) -> list[str]:
    """Return the reasons why two plans are not comparable; empty if they are."""
    before, now = (_flat(plan.model_dump(mode="json")) for plan in (first, second))
    return [
        f"{key} is {_as_text(before.get(key))} in A and {_as_text(now.get(key))} in B: {why}"
        for key, why in _CAVEATS.items()
        if before.get(key) != now.get(key)
    ]


def _differences(connection: duckdb.DuckDBPyConnection, plan: Plan) -> Iterator[_Difference]:
    """Yield the shared cells in the order of the second plan, p adjusted by family."""
    connection.execute(_PAIRED)
    names = [*plan.models, *plan.metrics, *plan.methods]
    rank = {name: index for index, name in enumerate(names)}
    cells = {
        tuple(key): rest
        for *key, cell, n_a, n_b in _all(connection, _SHARED)
        for rest in [(cell, n_a, n_b)]
    }
    families: dict[tuple[Any, ...], list[_Difference]] = {}
    for key in sorted(cells, key=lambda cell: (*cell[:2], *(rank[name] for name in cell[2:]))):
        cell, n_a, n_b = cells[key]
        values = connection.execute(
            "SELECT a, b FROM paired WHERE cell = ? ORDER BY image", [cell]
        ).fetchnumpy()
        difference = _difference(key, plan, numpy.asarray(values["a"]), numpy.asarray(values["b"]))
        families.setdefault(key[:4], []).append(replace(difference, n_a=n_a, n_b=n_b))
    for family in families.values():
        adjusted = holm([difference.pair.p for difference in family])
        for difference, p in zip(family, adjusted, strict=True):
            yield replace(difference, pair=replace(difference.pair, adjusted=p))


def _difference(key: Any, plan: Plan, a: Array, b: Array) -> _Difference:
    values = numpy.stack([b, a], axis=1)
    none = (0, 0)
    corruption, severity, model, metric, _ = key
    family = Family(corruption, severity, model, metric, ("B", "A"), values, none, none, none)
    higher = plan.card(family.metric).higher_is_better
    if not len(values):
        empty = Summary("", 0, 0, 0, 0)
        return _Difference(key, higher, 0, 0, empty, empty, Pair("B", "A", 0))
    summaries, (pair,) = analyse(family, plan.seed)
    return _Difference(key, higher, 0, 0, summaries[1], summaries[0], pair)


def _rows(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the numbers of rows in each run and in both, and of identical ones.

    They are compared as text, which has all digits of a number and the sign of a 0.
    """
    same = " AND ".join(
        f"a.{name}::VARCHAR IS NOT DISTINCT FROM b.{name}::VARCHAR"
        for name in SCHEMA.names
        if name not in (*KEY, *MEASURED_TIME)
    )
    sql = f"SELECT count(*), count(*) FILTER ({same}) FROM a JOIN b USING ({', '.join(KEY)})"  # noqa: S608 - the schema's names
    ((together, identical),) = _all(connection, sql)
    return {**_counts(connection), "both": together, "identical": identical}


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the number of rows of each run."""
    return dict(
        _all(connection, "SELECT 'a', count(*) FROM a UNION ALL SELECT 'b', count(*) FROM b")
    )


def _only(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str, list[str], int]]:
    """Return the names that only one run has, by kind: the first few, and their number."""
    found = []
    for kind in ("image", "corruption", "model", "method", "metric"):
        for run, other in (("a", "b"), ("b", "a")):
            sql = f"SELECT DISTINCT {kind} FROM {run} ANTI JOIN {other} USING ({kind}) ORDER BY 1"  # noqa: S608 - the names above
            names = [name for (name,) in _all(connection, sql)]
            if names:
                found.append((kind, run.upper(), names[:_MAX_NAMED], len(names)))
    return found


def _other_contents(connection: duckdb.DuckDBPyConnection) -> list[str]:
    ((count,),) = _all(
        connection,
        "SELECT count(DISTINCT image) FROM a JOIN b USING (image, corruption, severity, model) "
        "WHERE a.content <> b.content",
    )
    if not count:
        return []
    return [f"{count} images of the same name do not have the same pixels in both runs"]


def _settings(
    first: Store, second: Store, connection: duckdb.DuckDBPyConnection
) -> list[tuple[str, str, str]]:
    """Return the differences of plans, versions, hardware and resolved settings."""
    before = _provenance(first, connection, "a")
    now = _provenance(second, connection, "b")
    return [
        (key, _as_text(before.get(key)), _as_text(now.get(key)))
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key)
        and not (key.startswith(_RESOLVED) and (key not in before or key not in now))
    ]


def _provenance(store: Store, connection: duckdb.DuckDBPyConnection, view: str) -> dict[str, Any]:
    """Return the plan, environment and resolved settings of a run as one flat mapping."""
    session = store.manifest["sessions"][-1]
    environment = {key: value for key, value in session.items() if key not in ("began", "command")}
    provenance = _flat(store.plan.model_dump(mode="json")) | _flat(environment)
    for kind in _RESOLVED:
        sql = (
            f"SELECT DISTINCT {kind}, {kind}_settings FROM {view} "  # noqa: S608 - our own names
            f"WHERE {kind}_settings IS NOT NULL ORDER BY ALL"
        )
        for name, text in _all(connection, sql):
            key = f"{kind} {name}"
            provenance[key] = f"{provenance[key]} or {text}" if key in provenance else text
    return provenance


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "settings":
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _as_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _grouped(differences: list[_Difference]) -> list[dict[str, Any]]:
    """Return the differences by metric and condition."""
    groups: dict[tuple[str, str, int], list[_Difference]] = {}
    for difference in differences:
        corruption, severity, _, metric, _ = difference.cell
        groups.setdefault((metric, corruption, severity), []).append(difference)
    return [
        {
            "metric": metric,
            "condition": condition(corruption, severity),
            "arrow": tables.ARROWS[rows[0].higher_is_better],
            "rows": rows,
        }
        for (metric, corruption, severity), rows in groups.items()
    ]


def _csv_row(difference: _Difference) -> tuple[object, ...]:
    pair = difference.pair
    return (
        *(*difference.cell[:4], difference.higher_is_better, difference.cell[4]),
        *(difference.n_a, difference.n_b, pair.n, difference.a.mean, difference.b.mean),
        *(pair.difference, pair.low, pair.high, pair.effect, pair.p, pair.adjusted),
        pair.significant,
    )


def _all(connection: duckdb.DuckDBPyConnection, sql: str) -> list[Any]:
    return connection.execute(sql).fetchall()

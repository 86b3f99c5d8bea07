"""`unilens report` and `unilens query`: the results of a benchmark."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import require
from .app import app, needs_extra
from .output import format_number, show, show_json, show_table, show_written, waiting

_WIDEST = 60
_MAX_ROWS = 100
_MAX_TABLES = 8
"""Leader boards that are printed; the report has all."""
_BETTER = {"true": "higher is better", "false": "lower is better", "": "no direction"}

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


@app.command()
def report(
    run: Folder,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN_B]", help="A second run, to compare the first with."),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option("--out", help="The folder to write to; by default `report` in the run's own."),
    ] = None,
) -> None:
    """Write the results of a run as one HTML page, and as tables in CSV and LaTeX.

    With two runs, write their differences to `report-vs-RUN` in the second one's folder.
    """
    if other is None:
        write(run, out_)
        show_leaders(run, out_)
        return
    with needs_extra("report", "benchmark"):
        from ..benchmark.report.comparison import write_comparison
        from ..benchmark.store import Store

    folder = out_ or other / f"report-vs-{run.resolve().name}"
    with waiting("comparing the runs"):
        paths = write_comparison(Store(run), Store(other), folder)
    for path in paths:
        show_written(path)


def show_leaders(run: Path, folder: Path | None = None) -> None:
    """Print the methods of each model and metric by rank, with their intervals and costs."""
    with ((folder or run / "report") / "summary.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def family(row: dict[str, str]) -> tuple[str, ...]:
        return row["model"], row["metric"], row["corruption"], row["severity"]

    tables = [(key, list(group)) for key, group in itertools.groupby(rows, family)]
    for (model, metric, corruption, severity), group in tables[:_MAX_TABLES]:
        show()
        changed = f", {corruption} {severity}" if corruption else ""
        better = _BETTER[group[0]["higher_is_better"]]
        show(f", {model}{changed}; {better}", title=metric, highlight=False)
        show_table(
            ("rank", "method", "mean", "95 % interval", "n", "s per map", "passes"),
            list(map(_leader_row, itertools.count(1), _ranked(group))),
            right={0, 2, 4, 5, 6},
            whole={0, 2, 3, 4, 5, 6},
        )
    show("= no significant difference from the first", highlight=False)
    if len(tables) > _MAX_TABLES:
        show(f"{len(tables) - _MAX_TABLES} more tables are in the report", highlight=False)


def _ranked(group: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the rows of a table, the best mean first; those without a mean last."""
    known = [row for row in group if row["mean"]]
    if group[0]["higher_is_better"]:
        sign = -1 if group[0]["higher_is_better"] == "true" else 1
        known.sort(key=lambda row: sign * float(row["mean"]))
    return known + [row for row in group if not row["mean"]]


def _leader_row(rank: int, row: dict[str, str]) -> list[str]:
    def number(name: str, digits: int = 3) -> str:
        return format_number(float(row[name]), digits) if row[name] else "-"

    ranks = bool(row["mean"] and row["higher_is_better"])
    interval = f"{number('interval_low')} … {number('interval_high')}"
    passes = f"{number('forward', 0)} + {number('backward', 0)}"
    return [
        f"{rank}{'=' if row['standing'] == 'level' else ' '}" if ranks else "-",
        row["method"],
        number("mean"),
        interval if row["interval_low"] else "-",
        row["n"],
        number("map_seconds", 2),
        passes if row["forward"] else "-",
    ]


def write(run: Path, folder: Path | None = None) -> None:
    """Write the report of a run, to `report` in its own folder where no other is named."""
    with needs_extra("report", "benchmark"):
        from ..benchmark.report.page import write_report
        from ..benchmark.store import Store

    with waiting("working out the report"):
        paths = write_report(Store(run), folder or run / "report")
    for path in paths:
        show_written(path)


@app.command()
def query(
    run: Folder,
    sql: Annotated[
        str, typer.Argument(help='Of the view rows: "SELECT method, avg(value) FROM rows ..."')
    ],
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV, and nothing else.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, and nothing else.")
    ] = False,
) -> None:
    """Query the rows of a run in SQL (DuckDB's), without access to anything else."""
    require(not (csv_ and json_), "expected --csv or --json, got both")
    with needs_extra("query", "benchmark"):
        from ..benchmark.report.queries import query as ask
        from ..benchmark.report.tables import as_csv
        from ..benchmark.store import Store

    columns, rows = ask(Store(run), sql)
    if csv_:
        sys.stdout.write(as_csv(columns, [[_text(value) for value in row] for row in rows]))
    elif json_:
        require(
            len(set(columns)) == len(columns),
            "expected columns of different names for --json; rename them with AS",
        )
        show_json([dict(zip(columns, map(_plain, row), strict=True)) for row in rows])
    else:
        _show_rows(columns, rows)


def _show_rows(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    numeric = [
        column
        for column in range(len(columns))
        if all(isinstance(row[column], int | float | None) for row in rows)
    ]
    cells = [[_cell(value) for value in row] for row in rows[:_MAX_ROWS]]
    show_table(columns, cells, right=numeric, whole=numeric, max_width=_WIDEST)
    if len(rows) > _MAX_ROWS:
        show(f"  {len(rows) - _MAX_ROWS} more rows; --csv and --json print all")


def _cell(value: Any) -> str:
    text = str(_text(value))
    return text if len(text) <= 4 * _WIDEST else text[: 4 * _WIDEST] + "…"


def _text(value: Any) -> Any:
    """Return a value as a cell; bytes as their number."""
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, dict | list | tuple):
        return json.dumps(_plain(value))
    return "" if value is None else value


def _plain(value: Any) -> Any:
    """Return a value as JSON: null for non-finite numbers, text for other types."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, bool | int | str):
        return value
    return _text(value) if isinstance(value, bytes) else str(value)

"""`unilens report` and `unilens query`: the results of a benchmark."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import require
from . import options
from .app import app, needs_extra
from .leaders import show_leaders, write
from .output import (
    show,
    show_error,
    show_json,
    show_table,
    show_written,
    table_width,
    waiting,
    width,
)

_LONGEST = 240
"""Characters of a cell; --csv and --json print all."""
_MAX_ROWS = 100
_GRACE_SECONDS = 10.0

Folder = Annotated[Path, typer.Argument(metavar="RUN", hidden=True)]


@app.command()
def report(
    run: Folder,
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER_RUN", hidden=True),
    ] = None,
    out_: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="FOLDER", help="Output folder; by default report in the run's folder."
        ),
    ] = None,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a run's results as a page and as tables.

    The page is one HTML file; the tables are CSV and LaTeX. RUN is the folder of a run. With a
    second run, writes the differences of the two to report-vs-RUN in its folder.
    """
    require(
        overwrite or out_ is None or not out_.is_dir() or not any(out_.iterdir()),
        f"{out_} has files already; choose another folder with --out, or replace them with "
        "--overwrite",
    )
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


@app.command()
def query(
    run: Folder,
    sql: Annotated[
        str,
        typer.Argument(metavar="SQL", hidden=True),
    ],
    csv_: Annotated[bool, typer.Option("--csv", help="Print CSV, and nothing else.")] = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print a list of objects, and nothing else.")
    ] = False,
) -> None:
    """Query the rows of a run in SQL.

    RUN is the folder of a run. SQL is DuckDB's, of the view rows: 'SELECT method, avg(value)
    FROM rows GROUP BY ALL'. It has no access to other files.
    """
    require(not (csv_ and json_), "expected --csv or --json, got both")
    with needs_extra("query", "benchmark"):
        from ..benchmark.report.queries import SECONDS
        from ..benchmark.report.queries import query as ask
        from ..benchmark.report.tables import as_csv
        from ..benchmark.store import Store

    with _ended_after(SECONDS + _GRACE_SECONDS):
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


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End the process where a query does not end, though it has been interrupted."""

    def end() -> None:
        show_error("expected a query that can be interrupted, got one that cannot; simplify it")
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _show_rows(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    numeric = [
        column
        for column in range(len(columns))
        if all(isinstance(row[column], int | float | None) for row in rows)
    ]
    cells = [[_cell(value) for value in row] for row in rows[:_MAX_ROWS]]
    if table_width([columns, *cells]) <= width():
        show_table(columns, cells, right=numeric, whole=range(len(columns)))
    else:  # one block per row, so that no column is broken
        for number, row in enumerate(cells):
            show() if number else None
            show_table((), list(zip(columns, row, strict=True)), whole={0})
    if len(rows) > _MAX_ROWS:
        show(f"  {len(rows) - _MAX_ROWS} more rows; --csv and --json print all")


def _cell(value: Any) -> str:
    text = str(_text(value))
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


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

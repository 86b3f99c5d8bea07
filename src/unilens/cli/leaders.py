"""The report of a run, and its leader boards, as benchmark and report print them."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

from .app import needs_extra
from .output import format_number, show, show_table, show_written, waiting

_MAX_TABLES = 8
"""Leader boards that are printed; the report has all."""
_BETTER = {"true": "higher is better", "false": "lower is better", "": "no direction"}


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

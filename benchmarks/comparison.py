"""The tables of docs/benchmark.md, from the summary that `unilens report` has written.

    unilens benchmark benchmarks/comparison.toml --data FOLDER --out RUN
    python benchmarks/comparison.py RUN

One table per model: methods by metrics, means over images. The best mean is bold; a star stands
behind what the paired test, adjusted for all pairs of methods, does not tell apart from it.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

Row = Mapping[str, str]


def main() -> None:
    """Print the tables of a run."""
    with (Path(sys.argv[1]) / "report" / "summary.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["corruption"]]
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        images = max(int(row["n"]) for row in of_model)
        print(f"\n**{model}**, {images} images\n")
        print("\n".join(table(of_model)))


def table(rows: list[Row]) -> Iterable[str]:
    """Yield the lines of one model's table."""
    cells = {(row["method"], row["metric"]): row for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    headings = [f"`{one}` {arrow(rows, one)}" for one in metrics]
    yield f"| method | seconds | {' | '.join(headings)} |"
    yield "|---" * (len(metrics) + 2) + "|"
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [cells[method, metric] for metric in metrics]
        seconds = next((row["map_seconds"] for row in of_method if row["map_seconds"]), "")
        shown = f"{float(seconds):.2f}" if seconds else "–"
        yield f"| `{method}` | {shown} | {' | '.join(map(cell, of_method))} |"


def arrow(rows: Iterable[Row], metric: str) -> str:
    """Return which direction is good."""
    return {"true": "↑", "false": "↓"}[
        next(row["higher_is_better"] for row in rows if row["metric"] == metric)
    ]


def cell(row: Row) -> str:
    """Return a mean, with how it stands to the best."""
    if not row["mean"]:
        return "–"
    shown = f"{float(row['mean']):.3f}"
    return {"leader": f"**{shown}**", "level": f"{shown}*"}.get(row["standing"], shown)


if __name__ == "__main__":
    main()

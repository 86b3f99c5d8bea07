"""Read what the charts of the pages show: kept rows, the paper's figures, and tables of pages."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from math import nan
from pathlib import Path
from statistics import mean

import pyarrow.dataset

from unilens.benchmark.data.items import hash_order

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
BEGIN = "<!-- Written by docs/charts.py -->"
END = "<!-- End -->"


@cache
def kept(run: str, without: int = 0) -> Mapping[tuple[str, str, str], list[float]]:
    """Return the values of a kept run, by model, method and metric.

    Args:
        run: its folder in `benchmarks/results`.
        without: how many photographs are left out, the first in the order of the run.
    """
    columns = ["image", "model", "method", "metric", "value", "status"]
    folder = pyarrow.dataset.dataset(RESULTS / run / "rows", format="parquet")
    rows = folder.to_table(columns).to_pylist()
    left_out = set(hash_order({row["image"] for row in rows})[:without])
    values = defaultdict(list)
    for row in rows:
        if row["status"] == "ok" and row["image"] not in left_out:
            values[row["model"], row["method"], row["metric"]].append(row["value"])
    return values


def paper_mean(table: str, method: str) -> float:
    """Return the mean over networks of one of the paper's tables; NaN where it lacks the method."""
    file = resources.files("unilens.benchmark.report") / "paper.json"
    tables = json.loads(file.read_text(encoding="utf-8"))["tables"]
    cells = list(tables[table]["values"].values())
    if not isinstance(cells[0], Mapping):  # a table of UNI alone
        return mean(cells) if method == "uni" else nan
    return mean(cell[method]["mean"] for cell in cells)


def networks(run: str) -> list[str]:
    """Return the models of a kept run."""
    return sorted({model for model, _, _ in kept(run)})


def text_of(page: str) -> str:
    """Return the text of a page without the five rows that a chart has written."""
    text = (HERE / f"{page}.md").read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", "", text, flags=re.DOTALL)


def cells_of(text: str, columns: int) -> list[list[str]]:
    """Return the cells of all rows of tables with so many columns, headings included."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    rows = [[cell.strip() for cell in re.split(r" ?(?<!\\)\| ?", line)] for line in lines]
    return [row for row in rows if len(row) == columns]


def rows_of_page(page: str, columns: int) -> list[list[str]]:
    """Return the rows of a page's tables with so many columns, headings included."""
    return cells_of(text_of(page), columns)


def table(heading: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table, all columns but the first to the right."""
    lines = [list(heading), ["---", *["---:"] * (len(heading) - 1)], *map(list, rows)]
    return [f"| {' | '.join(map(str, line))} |" for line in lines]


def number(value: float, places: int = 3) -> str:
    """Return a value as the pages write it; a dash where there is none."""
    return "–" if value != value else f"{value:.{places}f}".replace("-", "−")


def write_rows(page: str, rows: Sequence[str]) -> None:
    """Replace the rows between the marks of a page."""
    path = HERE / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"expected the marks {BEGIN} and {END} in {path}; add them")
    path.write_text("\n\n".join([before + BEGIN, "\n".join(rows), END + after]), encoding="utf-8")

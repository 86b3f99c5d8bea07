"""The tables of docs/beyond.md, from the rows that lie beside the benchmarks."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "beyond.md").read_text(encoding="utf-8").replace("−", "-")


def printed(*arguments):
    command = [sys.executable, "benchmarks/beyond.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def cells_of(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table_of(text, columns):
    """Return the cells of all rows of tables of so many columns, without headings."""
    rows = [cells_of(line) for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if len(row) == columns and row[0] not in ("model", "setting")]


def test_where_uni_stands():
    runs = (f"benchmarks/results/{name}" for name in ("comparison", "digits"))
    said = printed("standing", *runs)
    ours, shown = table_of(said, 8), table_of(PAGE, 8)
    assert len(ours) == 45
    assert [row[2:4] + row[5:] for row in ours] == [row[2:4] + row[5:] for row in shown]
    good = sum(row[6] in ("best", "level") for row in ours)
    assert f"Best or level in {good} of 45 cells, {100 * good / 45:.0f} %" in PAGE
    assert f"best or level in {good / 45:.0%}" in said


def test_what_matters():
    ours = table_of(printed("settings", "benchmarks/results/settings"), 10)
    shown = table_of(PAGE, 10)
    assert len(ours) == 36
    assert [row[1:] for row in ours] == [row[1:] for row in shown]

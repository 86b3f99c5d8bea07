"""What the records of `unilens explain` say over labelled photographs.

Run:    unilens explain FOLDER/*.JPEG --out OUT
        python benchmarks/photographs.py OUT FOLDER/labels.csv

`labels.csv` has the columns file and imagenet_index. Printed are the model's top-1 accuracy, and
for each method the mean, mean magnitude and extremes of every diagnostic.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import Counter
from pathlib import Path

import numpy
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Read the records, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    with options.labels.open(encoding="utf-8") as file:
        labels = {
            Path(row["file"]).stem: int(row["imagenet_index"]) for row in csv.DictReader(file)
        }
    records = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(options.records.glob("*.json"))
    }
    right = [record["predictions"][0]["index"] == labels[name] for name, record in records.items()]
    console = Console(width=100)
    console.print(f"{len(records)} photographs, top-1 {numpy.mean(right):.1%}")
    for method in next(iter(records.values()))["methods"]:
        made = [record["methods"][method] for record in records.values()]
        table = Table(title=method)
        for heading in ("diagnostic", "mean", "mean magnitude", "least", "greatest", "undefined"):
            table.add_column(heading, justify="left" if heading == "diagnostic" else "right")
        for name in made[0]["diagnostics"]:
            known = [one["diagnostics"][name] for one in made]
            values = numpy.array([value for value in known if value is not None])
            figures = values.mean(), numpy.abs(values).mean(), values.min(), values.max()
            undefined = str(len(known) - len(values))
            table.add_row(name, *(f"{figure:.7g}" for figure in figures), undefined)
        console.print(table)
        console.print("warnings:", dict(Counter(name for one in made for name in one["warnings"])))


if __name__ == "__main__":
    main()

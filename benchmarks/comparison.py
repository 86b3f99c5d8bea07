"""The tables of docs/benchmark.md, and where UNI stands, from what `unilens report` has written.

    unilens benchmark benchmarks/comparison.toml --data FOLDER --out RUN
    python benchmarks/comparison.py RUN

One table per model: methods by metrics, means over images. The best mean is bold; a star stands
behind what the paired test, adjusted for all pairs of methods, does not tell apart from it. Below,
for each metric and model, UNI's rank by its mean, and the methods that the test tells it from.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from beyond import OURS, label

Row = Mapping[str, str]
SHORT = {
    "mu_fidelity": "μ-fidelity",
    "mu_fidelity:imputer=blur": "same, blur imputer",
    "mu_fidelity:correlation=pearson": "same, Pearson",
    "mu_fidelity:reduction=abs": "same, unsigned",
    "mu_fidelity_abs": "same, absolute value",
    "deletion_auc": "deletion",
    "insertion_auc": "insertion",
    "confidence_change": "confidence change",
    "completeness_gap": "completeness gap",
}


def main() -> None:
    """Print the tables of a run, then where UNI stands."""
    folder = Path(sys.argv[1]) / "report"
    rows, pairs = (read(folder / name) for name in ("summary.csv", "tests.csv"))
    models = list(dict.fromkeys(row["model"] for row in rows))
    for model in models:
        of_model = [row for row in rows if row["model"] == model]
        images = max(int(row["n"]) for row in of_model)
        print(f"\n**{model.replace('efficientnet_l', 'EfficientNet-L')}**, {images} photographs:\n")
        print("\n".join(table(of_model)))
    for metric in dict.fromkeys(row["metric"] for row in rows):
        print(f"\n{heading(metric)}")
        for model in models:
            of_cell = {"model": model, "metric": metric}
            print(f"  {model}: {standing(chosen(rows, of_cell), chosen(pairs, of_cell))}")


def read(path: Path) -> list[Row]:
    """Return the rows of a table of a report, without those of corrupted images."""
    with path.open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if not row["corruption"]]


def chosen(rows: Iterable[Row], values: Mapping[str, str]) -> list[Row]:
    """Return the rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def table(rows: list[Row]) -> Iterable[str]:
    """Yield the lines of one model's table."""
    cells = {(row["method"], row["metric"]): row for row in rows}
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    headings = [f"{heading(one)} {'↑' if higher(rows, one) else '↓'}" for one in metrics]
    yield f"| method | seconds | {' | '.join(headings)} |"
    yield "|---" + "|---:" * (len(metrics) + 1) + "|"
    for method in dict.fromkeys(row["method"] for row in rows):
        of_method = [cells[method, metric] for metric in metrics]
        seconds = next((row["map_seconds"] for row in of_method if row["map_seconds"]), "")
        shown = f"{float(seconds):.2f}" if seconds else "–"
        yield f"| {label(method)} | {shown} | {' | '.join(map(cell, of_method))} |"


def heading(metric: str) -> str:
    """Return what a column is called: without the number of subsets, which all have."""
    name = (
        metric.replace("subsets=100,", "").replace(",subsets=100", "").replace(":subsets=100", "")
    )
    return SHORT.get(name, name)


def higher(rows: Iterable[Row], metric: str) -> bool:
    """Return whether higher is better."""
    return next(row["higher_is_better"] for row in rows if row["metric"] == metric) == "true"


def cell(row: Row) -> str:
    """Return a mean, with how it stands to the best."""
    if not row["mean"]:
        return "–"
    shown = f"{float(row['mean']):.3f}"
    return {"leader": f"**{shown}**", "level": f"{shown}*"}.get(row["standing"], shown)


def standing(rows: list[Row], pairs: list[Row]) -> str:
    """Return the rank of UNI's mean, and the significantly better and worse methods."""
    means = {row["method"]: float(row["mean"]) for row in rows if row["mean"]}
    if OURS not in means:
        return "no value"
    sign = 1 if higher(rows, rows[0]["metric"]) else -1
    rank = 1 + sum(sign * mean > sign * means[OURS] for mean in means.values())
    apart = [
        pair["second"] if pair["first"] == OURS else pair["first"]
        for pair in pairs
        if OURS in (pair["first"], pair["second"]) and pair["significant"] == "true"
    ]
    better = [one for one in apart if sign * means[one] > sign * means[OURS]]
    worse = [one for one in apart if one not in better]
    return (
        f"{rank} of {len(means)}; better: {', '.join(map(label, better)) or 'none'}; "
        f"worse: {', '.join(map(label, worse)) or 'none'}"
    )


if __name__ == "__main__":
    main()

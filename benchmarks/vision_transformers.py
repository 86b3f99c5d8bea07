r"""Methods on a vision transformer: tables of means, and of differences from integrated gradients.

    unilens benchmark benchmarks/vision_transformers.toml --data FOLDER --limit 16 --out RUN \
        --allow-code
    python benchmarks/vision_transformers.py RUN [RUN ...]

One table per run: methods by metrics. A cell has the mean over photographs with its 95 % bootstrap
interval, and below the mean paired difference from the reference method with its interval, bold
where that has no 0 in it. Reads what `unilens report` has written.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from comparison import Row, read

REFERENCE = "ig:n_steps=15"
ARROWS = {"true": " ↑", "false": " ↓", "": ""}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--reference", default=REFERENCE, metavar="METHOD")
    given = parser.parse_args()
    for run in given.runs:
        missing = [name for name in ("summary.csv", "tests.csv") if not report(run, name).is_file()]
        if missing:
            parser.error(f"expected {report(run, missing[0])}, got none; run unilens report {run}")
        print(
            "\n".join(
                table(
                    *(read(report(run, name)) for name in ("summary.csv", "tests.csv")),
                    given.reference,
                )
            ),
            end="\n\n",
        )


def report(run: Path, name: str) -> Path:
    """Return the path of a file of a run's report."""
    return run / "report" / name


def table(summaries: Sequence[Row], pairs: Sequence[Row], reference: str) -> list[str]:
    """Return the lines of one table in Markdown."""
    metrics = {row["metric"]: ARROWS[row["higher_is_better"]] for row in summaries}
    methods = dict.fromkeys(row["method"] for row in summaries)
    cells = {(row["method"], row["metric"]): mean(row) for row in summaries}
    against = {}
    for row in pairs:
        if reference in (row["first"], row["second"]) and row["mean_difference"]:
            sign = 1 if row["second"] == reference else -1
            other = row["first"] if sign == 1 else row["second"]
            against[other, row["metric"]] = difference(row, sign)
    head = ["method", "seconds", *(f"`{metric}`{arrow}" for metric, arrow in metrics.items())]
    seconds = {row["method"]: row["map_seconds"] for row in summaries if row["map_seconds"]}
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    for method in methods:
        values = [
            "<br>".join(filter(None, (cells[method, metric], against.get((method, metric)))))
            for metric in metrics
        ]
        cost = f"{float(seconds[method]):.2f}" if method in seconds else "–"
        lines.append(" | ".join([f"`{method}`", cost, *values]))
    return [f"| {line} |" for line in lines]


def mean(row: Row) -> str:
    """Return the cell of a mean and its interval."""
    if not row["mean"]:
        return "–"
    ends = between(row, 1) if row["interval_low"] else ""
    return f"{float(row['mean']):.3f}{ends}"


def difference(row: Row, sign: int) -> str:
    """Return the cell of a paired difference and its interval, bold where that leaves out 0."""
    shown = f"Δ {sign * float(row['mean_difference']):+.3f}"
    if not row["interval_low"]:
        return shown
    certain = float(row["interval_low"]) * float(row["interval_high"]) > 0
    shown += between(row, sign)
    return f"**{shown}**" if certain else shown


def between(row: Row, sign: int) -> str:
    """Return an interval as text; where the sign is -1, of the value turned round."""
    low, high = sorted(sign * float(row[f"interval_{end}"]) for end in ("low", "high"))
    return f" ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()

"""Where methods stand on networks of several families: tables from what `unilens report` wrote.

    unilens benchmark benchmarks/families.toml --data PHOTOGRAPHS --out RUN --allow-code
    python benchmarks/families.py RUN [--against METHOD ...]

First the mean ranks of all methods, over all tables and by network and metric; then, for UNI,
`uni_blur` and the rivals, how many tables of a network and a metric have each of the others
significantly worse or better (Wilcoxon signed-rank, adjusted by Holm's method). The page of the
report has the critical-difference diagram.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from comparison import Row, read

AGAINST = ("uni_blur", "uni", "mfaba", "ig2", "fringe_b")
"""Names of the methods that are set against all others."""


def main() -> None:
    """Print the tables of a run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", nargs="+", default=AGAINST, metavar="METHOD")
    given = parser.parse_args()
    folder = given.run / "report"
    if not (folder / "ranks.csv").is_file():
        parser.error(f"expected {folder / 'ranks.csv'}, got none; run unilens report {given.run}")
    with (folder / "ranks.csv").open(encoding="utf-8") as file:
        ranks = list(csv.DictReader(file))
    print("\n".join(rank_table(ranks)))
    pairs, summaries = read(folder / "tests.csv"), read(folder / "summary.csv")
    print()
    print("\n".join(duels(pairs, summaries, given.against)))


def rank_table(ranks: Sequence[Row]) -> Iterable[str]:
    """Yield the lines of mean ranks, the best method first; the best of a column is bold."""
    columns = list(dict.fromkeys((row["scope"], row["name"]) for row in ranks))
    means = {(row["scope"], row["name"], row["method"]): float(row["mean_rank"]) for row in ranks}
    methods = [row["method"] for row in ranks if row["scope"] == "all"]
    best = {column: min(means[*column, method] for method in methods) for column in columns}
    yield f"| method | {' | '.join(name or 'all' for _, name in columns)} |"
    yield "|---" + "|---:" * len(columns) + "|"
    for method in methods:
        row = [means[*column, method] for column in columns]
        cells = [
            f"**{mean:.1f}**" if mean == best[column] else f"{mean:.1f}"
            for column, mean in zip(columns, row, strict=True)
        ]
        yield f"| `{method}` | {' | '.join(cells)} |"


def duels(pairs: Sequence[Row], summaries: Sequence[Row], against: Sequence[str]) -> Iterable[str]:
    """Yield the lines of wins and losses: tables in which a column's method beats a row's."""
    higher = {row["metric"]: row["higher_is_better"] for row in summaries}
    methods = list(dict.fromkeys(row["method"] for row in summaries))
    ours = [method for method in methods if method.partition(":")[0] in against]
    wins: Counter[tuple[str, str]] = Counter()
    tables: Counter[frozenset[str]] = Counter()
    for pair in pairs:
        if not higher[pair["metric"]] or not pair["mean_difference"]:
            continue
        tables[frozenset((pair["first"], pair["second"]))] += 1
        if pair["significant"] == "true":
            positive = float(pair["rank_biserial"]) > 0
            ordered = positive == (higher[pair["metric"]] == "true")
            wins[
                (pair["first"], pair["second"]) if ordered else (pair["second"], pair["first"])
            ] += 1
    yield f"| won : lost, of tables | {' | '.join(f'`{method}`' for method in ours)} |"
    yield "|---" + "|---:" * len(ours) + "|"
    for other in methods:
        cells = [
            "–"
            if own == other or not tables[frozenset((own, other))]
            else f"{wins[own, other]} : {wins[other, own]}, {tables[frozenset((own, other))]}"
            for own in ours
        ]
        yield f"| `{other}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()

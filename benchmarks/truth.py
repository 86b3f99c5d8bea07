"""Which method finds what a network is known to read: the numbers of docs/truth.md.

    python benchmarks/truth.py run FOLDER [RUN ...]
    python benchmarks/truth.py tables FOLDER

The first command runs benchmarks/truth.toml on each network of known truth, every one into a folder
of its name, and on the birds once more with the methods' default scores. The second prints the
tables. Of what is found a cell has the mean over images with its 95 % bootstrap interval. Of the
agreement it has the rank correlation, over methods without the controls, of their means by a metric
of faithfulness with their means by the truth; in each resample of the images both are taken anew.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import mean

import numpy
from scipy.stats import rankdata

from unilens.benchmark.plan import Plan, read_plan_file
from unilens.benchmark.report.statistics import interval, resampled
from unilens.benchmark.runner import run
from unilens.benchmark.store import Store

PLAN = Path(__file__).with_suffix(".toml")
NETWORKS = ("texture", "shortcut", "birds")
DEFAULT_SCORES = "birds_probability"
"""The run on birds in which methods explain what they explain by default."""
CONTROLS = ("random", "edges")
TRUTH = {
    "texture": "relevance_rank:reduction=abs",
    "shortcut": "relevance_rank:reduction=abs",
    "birds": "single_deletion",
}
"""By what methods are put in order, by network."""
MASKED = {
    "inside": "relevance_rank:reduction=abs",
    "inside, positive": "relevance_rank",
    "mass": "relevance_mass",
    "pointing": "pointing_game",
}
"""Headings of what is measured with a mask."""
FAITHFULNESS = {
    "mu_fidelity": 1,
    "mu_fidelity:imputer=blur": 1,
    "insertion_auc": 1,
    "insertion_auc:imputer=blur": 1,
    "deletion_auc": -1,
    "deletion_auc:imputer=blur": -1,
}
"""Metrics that know nothing of the truth, and whether high is good."""


def main() -> None:
    """Run the plan, or print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "tables"))
    parser.add_argument("folder", type=Path)
    runs = (*NETWORKS, DEFAULT_SCORES)
    parser.add_argument("runs", nargs="*", metavar="RUN", default=runs)
    given = parser.parse_args()
    if given.command == "run":
        for name in given.runs:
            outcome = run(plan_of(name), given.folder / name)
            print(f"{name}: {outcome.before + outcome.written} rows, {outcome.failed} failed")
        return
    for name in NETWORKS:
        print(f"\n**{name}**\n")
        print("\n".join(found(given.folder, name)))
    print("\n**agreement**\n")
    print("\n".join(agreement(given.folder)))


def plan_of(name: str) -> Plan:
    """Return the plan of a run."""
    network = name.removesuffix("_probability")
    measured = MASKED.values() if network != "birds" else ("single_deletion",)
    default = name == DEFAULT_SCORES
    values = {
        "models": [f"truth:{network}"],
        "metrics": [*measured, *(() if default else FAITHFULNESS)],
        "data": {"source": f"truth:{network}"},
    }
    plan = read_plan_file(PLAN, values)
    return plan.model_copy(update={"settings": {}}) if default else plan


def found(folder: Path, name: str) -> Iterator[str]:
    """Yield the lines of a table: methods by what is measured against the truth, best first."""
    columns = {heading: (folder / name, metric) for heading, metric in MASKED.items()}
    if name == "birds":
        columns = {
            "single deletion": (folder / name, "single_deletion"),
            "of the default score": (folder / DEFAULT_SCORES, "single_deletion"),
        }
    first, metric = next(iter(columns.values()))
    means = {
        method: numpy.nanmean(values)
        for (method, one), values in values_of(first).items()
        if one == metric
    }
    yield f"| method | {' | '.join(columns)} |"
    yield "|---" + "|---:" * len(columns) + "|"
    for method in sorted(means, key=means.__getitem__, reverse=True):
        cells = (cell(run, metric, method) for run, metric in columns.values())
        yield f"| `{method}` | {' | '.join(cells)} |"


def cell(folder: Path, metric: str, method: str) -> str:
    """Return a mean with its interval."""
    values = values_of(folder).get((method, metric))
    if values is None:
        return "–"
    low, high = interval(resampled_means(folder, metric)[method])
    return f"{number(mean(values[~numpy.isnan(values)]))} ({number(low)} … {number(high)})"


def agreement(folder: Path) -> Iterator[str]:
    """Yield the lines of a table: metrics of faithfulness by networks."""
    yield f"| metric | {' | '.join(NETWORKS)} |"
    yield "|---" + "|---:" * len(NETWORKS) + "|"
    for metric, sign in FAITHFULNESS.items():
        cells = (agreement_cell(folder / name, metric, sign) for name in NETWORKS)
        yield f"| `{metric}` | {' | '.join(cells)} |"


def agreement_cell(folder: Path, metric: str, sign: int) -> str:
    """Return the rank correlation of two orders of methods, with its interval."""
    truth = TRUTH[folder.name]
    values = values_of(folder)
    of_truth, of_metric = (resampled_means(folder, name) for name in (truth, metric))
    methods = [name for name in of_truth if name in of_metric and name not in CONTROLS]
    first, second = (
        numpy.array([numpy.nanmean(values[name, one]) for name in methods])
        for one in (truth, metric)
    )
    resamples = rank_correlation(
        *(numpy.stack([of[name] for name in methods], axis=1) for of in (of_truth, of_metric))
    )
    low, high = interval(sign * resamples)
    middle = sign * float(rank_correlation(first[None], second[None])[0])
    return f"{number(middle)} ({number(low)} … {number(high)})"


def rank_correlation(first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    """Return the Spearman correlations `(n,)` of rows `(n, k)`; ties within 1e-9 share a rank."""
    ranks = [rankdata(values.round(9), axis=1) for values in (first, second)]
    a, b = (values - values.mean(1, keepdims=True) for values in ranks)
    return (a * b).sum(1) / numpy.sqrt((a**2).sum(1) * (b**2).sum(1))


def number(value: float | None) -> str:
    """Return two digits after the point."""
    missing = value is None or math.isnan(value)
    return "–" if missing else f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")


@cache
def values_of(folder: Path) -> Mapping[tuple[str, str], numpy.ndarray]:
    """Return the values `(images,)` of a run by method and metric; NaN where there is none."""
    rows = Store(folder).table(columns=["image", "method", "metric", "value"]).to_pylist()
    images = {image: at for at, image in enumerate(sorted({row["image"] for row in rows}))}
    values: dict[tuple[str, str], numpy.ndarray] = {}
    for row in rows:
        if row["value"] is not None:
            empty = numpy.full(len(images), numpy.nan)
            key = row["method"], row["metric"]
            values.setdefault(key, empty)[images[row["image"]]] = row["value"]
    return values


@cache
def resampled_means(folder: Path, metric: str) -> Mapping[str, numpy.ndarray]:
    """Return the means `(resamples,)` of each method that has values; the same images for all."""
    values = {
        method: column for (method, name), column in values_of(folder).items() if name == metric
    }
    means, _ = resampled(numpy.stack(list(values.values()), axis=1), seed=0)
    return dict(zip(values, means.T, strict=True))


if __name__ == "__main__":
    main()

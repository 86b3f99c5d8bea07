"""What makes a UNI, and where `uni_blur` stands among all methods: the tables of docs/beyond.md.

    unilens benchmark benchmarks/beyond.toml --data FOLDER --limit 31 --out RUN
    python benchmarks/beyond.py settings RUN
    unilens benchmark benchmarks/comparison.toml --data FOLDER --out RUN
    python benchmarks/beyond.py standing RUN:31 [RUN ...]

`settings`: means of each setting and rival; a star where the paired Wilcoxon test, adjusted (Holm)
for all settings of the column, tells it from `uni_blur` on the same images. `standing`: per model
and metric, `uni_blur` beside the best other method, whose 95 % bootstrap interval says whether it
is level with that, and beside `uni_paper`, by the interval of their paired difference. `RUN:N`
leaves out the first N images of a run, in the order in which they were taken: settings were chosen
there.

The kept rows of `uni_blur` are those of its search by one full step, without the line search.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy
import pyarrow.dataset

from unilens.benchmark.data.items import hash_order
from unilens.benchmark.report import statistics
from unilens.benchmark.report.statistics import ALPHA, holm, signed_rank
from unilens.metrics import metrics

FULL_STEP = ("gradient=normalised", "line_search=false", "projection=sphere")
"""Settings of the search by one full step, of which the kept rows are."""
OURS = f"uni_blur:{','.join(FULL_STEP)}"
ROUNDING = 1e-6
"""Means of sums in float32 that differ by less are the same."""
Values = Mapping[str, Mapping[str, float]]
"""By method, then by image."""
Cells = dict[tuple[str, str], dict[str, dict[str, float]]]
"""Values by model and metric."""


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["settings", "standing"])
    parser.add_argument("runs", nargs="+", metavar="RUN[:N]")
    given = parser.parse_args()
    cells: Cells = defaultdict(lambda: defaultdict(dict))
    for run in given.runs:
        add(cells, *parted(run))
    if not cells:
        sys.exit("expected rows with values, got none; give the folder of a run")
    print("\n".join((settings if given.what == "settings" else standing)(cells)))


def parted(text: str) -> tuple[Path, int]:
    """Return the folder of a run and how many of its first images are left out.

    >>> parted("runs/one:31")[1], parted("runs/one")[1]
    (31, 0)
    """
    folder, colon, count = text.rpartition(":")
    return (Path(folder), int(count)) if colon and count.isdigit() else (Path(text), 0)


def add(cells: Cells, run: Path, without: int) -> None:
    """Add the values of a run, by model and metric."""
    if not (run / "manifest.json").is_file():
        sys.exit(f"expected the folder of a run, with its manifest.json, got {run}")
    columns = ["image", "model", "method", "metric", "value", "status", "corruption"]
    rows = pyarrow.dataset.dataset(run / "rows", format="parquet").to_table(columns).to_pylist()
    images = hash_order({row["image"] for row in rows})
    if without and without >= len(images):
        sys.exit(f"expected fewer to leave out than there are images in {run}, {len(images)}")
    left_out = set(images[:without])
    for row in rows:
        if row["image"] in left_out or row["status"] != "ok" or row["corruption"]:
            continue
        cells[row["model"], row["metric"]][row["method"]][row["image"]] = row["value"]


def sign_of(metric: str) -> int:
    """Return 1 where higher is better, -1 where lower is."""
    return 1 if metrics[metric.partition(":")[0]].card.higher_is_better else -1


def label(method: str) -> str:
    """Return what a method is called in a table: the settings of the full step in two words.

    >>> label("uni_blur:gradient=normalised,line_search=false,projection=sphere,n_steps=8")
    '`uni_blur:n_steps=8` (full step)'
    >>> label("ig:n_steps=15")
    '`ig:n_steps=15`'
    """
    if FULL_STEP[1] not in method:
        return f"`{method}`"
    name, _, given = method.partition(":")
    own = ",".join(one for one in re.split(r",(?![^[]*\])", given) if one not in FULL_STEP)
    return f"`{name}{':' * bool(own)}{own}` (full step)"


def settings(cells: Mapping[tuple[str, str], Values]) -> Iterator[str]:
    """Yield the table of means of each model."""
    for model in dict.fromkeys(model for model, _ in cells):
        of_model = {metric: values for (one, metric), values in cells.items() if one == model}
        if any(OURS not in values for values in of_model.values()):
            sys.exit(f"expected {OURS!r} among the methods of {model}, got a run without it")
        significant = {metric: significant_methods(values) for metric, values in of_model.items()}
        methods = dict.fromkeys(method for values in of_model.values() for method in values)
        common = {
            metric: sorted(set.intersection(*(set(found) for found in values.values())))
            for metric, values in of_model.items()
        }
        images = max(map(len, common.values()))
        yield f"\n{model}, {images} images\n"
        yield f"| setting | {' | '.join(of_model)} |"
        yield f"|---{'|---:' * len(of_model)}|"
        for method in methods:
            shown = [
                f"{array(values[method], common[metric]).mean():.3f}"
                f"{'*' if method in significant[metric] else ''}"
                if method in values and common[metric]
                else "–"
                for metric, values in of_model.items()
            ]
            yield f"| {label(method)} | {' | '.join(shown)} |"


def significant_methods(values: Values) -> set[str]:
    """Return the methods that the adjusted test tells from `uni_blur`."""
    others = [method for method in values if method != OURS]
    p_values = []
    for method in others:
        images = sorted(values[method].keys() & values[OURS].keys())
        p_values.append(signed_rank(array(values[method], images) - array(values[OURS], images))[1])
    adjusted = zip(others, holm(p_values), strict=True)
    return {method for method, p in adjusted if p is not None and p < ALPHA}


def standing(cells: Mapping[tuple[str, str], Values]) -> Iterator[str]:
    """Yield a line per cell, then how many of them `uni_blur` leads, is level in, and loses."""
    counts: dict[str, int] = defaultdict(int)
    below, incomplete = [], set[str]()
    yield (
        f"| model | metric | images | {label(OURS)} | best other | interval | verdict | "
        "to `uni_paper` |"
    )
    yield "|---|---|---:|---:|---|---|---|---|"
    for (model, metric), values in cells.items():
        sign = sign_of(metric)
        if metric.startswith("confidence_change") or OURS not in values:
            continue
        common = sorted(set.intersection(*(set(values[one]) for one in (OURS, "uni_paper"))))
        others = {one: found for one, found in values.items() if one != OURS}
        complete = {one: found for one, found in others.items() if set(common) <= set(found)}
        if not complete or not common:
            continue
        incomplete |= others.keys() - complete.keys()
        arrays = {one: array(found, common) for one, found in complete.items()}
        ours = array(values[OURS], common)
        best = max(arrays, key=lambda one: sign * arrays[one].mean())
        low, high = interval(arrays[best])
        edge = low if sign > 0 else high
        if sign * ours.mean() >= sign * arrays[best].mean() - ROUNDING:
            verdict = "best"
        elif sign * ours.mean() >= sign * edge:
            verdict = "level"
        else:
            verdict = "below"
        counts[verdict] += 1
        against = interval(sign * (ours - array(values["uni_paper"], common)))
        if against[1] < 0:
            below.append(f"{model} {metric}")
        yield (
            f"| {model} | `{metric}` | {len(common)} | {ours.mean():.3f} | {label(best)} "
            f"{arrays[best].mean():.3f} | {low:.3f} to {high:.3f} | {verdict} | "
            f"{against[0]:+.3f} to {against[1]:+.3f} |"
        )
    total = sum(counts.values())
    if not total:
        sys.exit(f"expected {OURS!r} and 'uni_paper' beside other methods, got a run without them")
    good = counts["best"] + counts["level"]
    yield (
        f"\nbest in {counts['best']}, level in {counts['level']}, below in {counts['below']} of "
        f"{total} cells: best or level in {good / total:.0%}"
    )
    yield f"below uni_paper beyond the interval: {', '.join(below) or 'nowhere'}"
    if incomplete:
        yield f"left out where they lack an image: {', '.join(sorted(incomplete))}"


def array(values: Mapping[str, float], images: list[str]) -> numpy.ndarray:
    """Return the values of these images."""
    return numpy.array([values[image] for image in images])


def interval(values: numpy.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean."""
    means, _ = statistics.resampled(values[:, None], seed=0)
    return statistics.interval(means)


if __name__ == "__main__":
    main()

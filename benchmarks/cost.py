"""The tables of docs/cost.md, from the run of a cost study.

Run:    unilens benchmark --preset cost --out RUN && python benchmarks/cost.py RUN [BENCHMARK]

Everything in the tables is computed from RUN. BENCHMARK is the run of a benchmark, whose rows say
how many bytes one takes on disk.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from unilens.benchmark.cost.design import YARDSTICKS
from unilens.benchmark.cost.driver import measure_driver
from unilens.benchmark.cost.projection import Limits, project, what_breaks
from unilens.benchmark.cost.report import DEVICES, SPEED_UPS, hours, papers_workload
from unilens.benchmark.cost.scaling import CPU_SECONDS, MEMORY, Study
from unilens.benchmark.plan import presets, read_plan
from unilens.benchmark.store import Store

MEBIBYTE = 2**20
WEEK = 168


def show(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as Markdown; all but the first column are numbers."""
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(one) for one in row)} |")


def small(value: float | None) -> str:
    """Return a number to three figures."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def sized(value: float, unit: str) -> str:
    """Return a number with its unit; bytes as GiB."""
    return f"{small(value / 2**30)} GiB" if unit == "bytes" else f"{small(value)} {unit}"


def centre(study: Study, model: str) -> None:
    """Print what was measured at the centre."""
    rows = [study.at(model, one) for one in (*YARDSTICKS, *study.plan.methods)]
    show(
        f"{model} at the centre: {study.cost.centre}",
        ("method", "steps", "core-seconds", "seconds", "bare passes", "own passes", "MiB"),
        (
            (
                *(f"`{row['method']}`", row["n_steps"] or "–"),
                *(small(row[CPU_SECONDS] / row["batch"]), small(row["seconds"] / row["batch"])),
                *(small(study.bare_multiple(row)), f"{row['forward']} + {row['backward']}"),
                round(row[MEMORY] / MEBIBYTE),
            )
            for row in rows
            if row
        ),
    )


def laws(study: Study, model: str, what: str) -> None:
    """Print the laws of one cost, a line per method."""
    unit = MEBIBYTE if what == MEMORY else 1
    rows = []
    for method in (*YARDSTICKS, *study.plan.methods):
        row = [f"`{method}`"]
        for varied in ("resolution", "n_steps", "batch"):
            fit = study.scaling(model, method, what, varied).fit
            by = 1 if varied == "resolution" else unit
            row.append(
                "–"
                if fit is None
                else f"{fit.b / by:.3g} [{fit.low / by:.3g}, {fit.high / by:.3g}] ({fit.worst:.0%})"
            )
        rows.append(row)
    name = "core-seconds" if what == CPU_SECONDS else "MiB"
    heads = ("method", "exponent of the pixels", f"{name} per step", f"{name} per image of a batch")
    show(f"{name}, {model}: [95 % interval] (largest residual)", heads, rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("benchmark", nargs="?", type=Path)
    options = parser.parse_args()
    store = Store(options.run)
    study = Study(store.plan, store.costs())
    hardware = store.manifest["sessions"][-1]["hardware"]
    loads = [row["load"] for row in study.rows if row["load"] is not None]
    print(f"{len(study.rows)} measurements, {store.manifest['sessions'][-1]}")
    print(f"load {min(loads):.1f} to {max(loads):.1f}")
    for model in study.plan.models:
        centre(study, model)
        laws(study, model, CPU_SECONDS)
        laws(study, model, MEMORY)
    work = papers_workload()
    judged = project(study, work, Store(options.benchmark) if options.benchmark else None)
    show(
        "Single passes at the centre, core-seconds per image, and hours of one core",
        ("model", *YARDSTICKS, "hours, maps", "hours, metrics"),
        (
            (
                f"`{model}`",
                *(small(study.pass_seconds(model, one)) for one in YARDSTICKS),
                small(sum(v for (one, _), v in judged.map_hours.items() if one == model)),
                small(judged.metric_hours[model]),
            )
            for model in judged.metric_hours
        ),
    )
    methods = sorted({method for _, method in judged.map_hours}, key=judged.share_of, reverse=True)
    show(
        "Hours of one core, maps, all models",
        ("method", "steps in use", "hours", "share"),
        (
            (
                *(f"`{one}`", study.usual_steps(one) or "–"),
                small(sum(v for (_, method), v in judged.map_hours.items() if method == one)),
                f"{judged.share_of(one):.1%}",
            )
            for one in methods
        ),
    )
    speeds = ["one core" if one is None else f"{one:g} ×" for one in SPEED_UPS]
    for title, some in (("maps", replace(work, metrics=())), ("maps and metrics", work)):
        rows = [(one.devices, *map(small, one.all)) for one in hours(study, some)]
        show(f"Hours, {title}", ("devices", *speeds), rows)
    print(
        f"\ndevices {DEVICES}; rows {judged.rows:,}; shards {judged.shards:,}; bytes per row "
        f"{judged.row_bytes}; disk {judged.disk_bytes}; worker {judged.worker_bytes}"
    )
    driver = measure_driver(read_plan(presets()["paper"]))
    print(driver)
    memory = hardware["memory_bytes"]
    limits = Limits(WEEK, 1, memory, memory, 100 * 2**30 if judged.row_bytes else None)
    show(
        f"What breaks: {limits}",
        ("what", "needed", "there is", "share", "enough for images", "remedy"),
        (
            (
                one.what,
                *(sized(value, one.unit) for value in (one.need, one.limit)),
                small(one.share),
                *("any" if one.images is None else f"{one.images:,.0f}", one.remedy),
            )
            for one in what_breaks(judged, work, driver, limits)
        ),
    )


if __name__ == "__main__":
    main()

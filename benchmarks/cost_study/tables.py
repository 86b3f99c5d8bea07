"""The tables of docs/cost.md as Markdown, from the rows of a cost study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from unilens.benchmark.plan import presets, read_plan
from unilens.benchmark.store import Store

from .config import YARDSTICKS
from .driver import measure_driver
from .projection import Limits, Projection, Workload, bottlenecks, project
from .scaling import CPU_SECONDS, MEMORY, Study
from .store import OK, CostStore

MEBIBYTE = 2**20
WEEK = 168
DEVICES = (1, 4, 16, 64)
SPEED_UPS = (None, 10.0, 50.0)


def print_tables(store: CostStore, benchmark: Store | None = None) -> None:
    """Print all tables.

    Args:
        store: the study.
        benchmark: a run of `unilens benchmark`, whose rows give the bytes of one on disk.
    """
    study = Study(store.config, store.rows())
    loads = [row["load"] for row in study.rows if row.get("load") is not None]
    print(f"{len(study.rows)} measurements, {store.study['sessions'][-1]}")
    print(f"load {min(loads, default=0):.1f} to {max(loads, default=0):.1f}")
    for row in study.rows:
        if row["status"] != OK:
            print(f"{row['status']}: {row['method']}, {row['model']}: {row['reason']}")
    for model in study.config.models:
        _print_centre(study, model)
        _print_fits(study, model, CPU_SECONDS)
        _print_fits(study, model, MEMORY)
    paper = read_plan(presets()["paper"])
    workload = Workload(metrics=paper.metrics)
    projection = project(study, workload, benchmark)
    _print_passes(study, projection)
    _print_methods(study, projection)
    _print_hours(study, workload)
    print(
        f"\ndevices {DEVICES}; rows {projection.rows:,}; shards {projection.shards:,}; bytes per "
        f"row {projection.row_bytes}; disk {projection.disk_bytes}; worker "
        f"{projection.worker_bytes}"
    )
    driver = measure_driver(paper)
    print(driver)
    memory = store.hardware["memory_bytes"]
    disk = 100 * 2**30 if projection.row_bytes else None
    limits = Limits(WEEK, 1, memory, memory, disk)
    _table(
        f"What breaks: {limits}",
        ("what", "needed", "there is", "share", "enough for images", "remedy"),
        (
            (
                need.what,
                *(_with_unit(value, need.unit) for value in (need.need, need.limit)),
                _figures(need.share),
                *("any" if need.images is None else f"{need.images:,.0f}", need.remedy),
            )
            for need in bottlenecks(projection, workload, driver, limits)
        ),
    )


def _print_centre(study: Study, model: str) -> None:
    """Print the measurements at the centre."""
    rows = [study.at(model, method) for method in (*YARDSTICKS, *study.config.methods)]
    _table(
        f"{model} at the centre: {study.config.centre}",
        ("method", "steps", "core-seconds", "seconds", "bare passes", "own passes", "MiB"),
        (
            (
                *(f"`{row['method']}`", row["n_steps"] or "–"),
                *(_figures(row[CPU_SECONDS] / row["batch"]),),
                *(_figures(row["seconds"] / row["batch"]),),
                *(_figures(study.bare_multiple(row)), f"{row['forward']} + {row['backward']}"),
                "–" if row[MEMORY] is None else round(row[MEMORY] / MEBIBYTE),
            )
            for row in rows
            if row
        ),
    )


def _print_fits(study: Study, model: str, what: str) -> None:
    """Print the fits of one cost, a line per method."""
    unit = MEBIBYTE if what == MEMORY else 1
    rows = []
    for method in (*YARDSTICKS, *study.config.methods):
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
    _table(f"{name}, {model}: [95 % interval] (largest residual)", heads, rows)


def _print_passes(study: Study, projection: Projection) -> None:
    """Print seconds of single passes and projected hours, a line per model."""
    _table(
        "Single passes at the centre, core-seconds per image, and hours of one core",
        ("model", *YARDSTICKS, "hours, maps", "hours, metrics"),
        (
            (
                f"`{model}`",
                *(_figures(study.pass_seconds(model, name)) for name in YARDSTICKS),
                _figures(sum(v for (name, _), v in projection.map_hours.items() if name == model)),
                _figures(projection.metric_hours[model]),
            )
            for model in projection.metric_hours
        ),
    )


def _print_methods(study: Study, projection: Projection) -> None:
    """Print projected hours, a line per method."""
    methods = sorted(
        {method for _, method in projection.map_hours}, key=projection.share_of, reverse=True
    )
    _table(
        "Hours of one core, maps, all models",
        ("method", "steps in use", "hours", "share"),
        (
            (
                *(f"`{method}`", study.config.usual_steps(method) or "–"),
                _figures(sum(v for (_, name), v in projection.map_hours.items() if name == method)),
                f"{projection.share_of(method):.1%}",
            )
            for method in methods
        ),
    )


def _print_hours(study: Study, workload: Workload) -> None:
    """Print the hours of a workload by number of devices and speed-up."""
    speeds = ["one core" if speed is None else f"{speed:g} ×" for speed in SPEED_UPS]
    maps = replace(workload, metrics=())
    for title, load in (("maps", maps), ("maps and metrics", workload)):
        rows = [
            (
                devices,
                *(
                    _figures(project(study, replace(load, devices=devices, speed_up=speed)).hours)
                    for speed in SPEED_UPS
                ),
            )
            for devices in DEVICES
        ]
        _table(f"Hours, {title}", ("devices", *speeds), rows)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table as Markdown; all but the first column are numbers."""
    print(f"\n{title}\n\n| {' | '.join(heads)} |\n|---|{'---:|' * (len(heads) - 1)}")
    for row in rows:
        print(f"| {' | '.join(str(cell) for cell in row)} |")


def _figures(value: float | None) -> str:
    """Return a number to three figures."""
    return "–" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def _with_unit(value: float, unit: str) -> str:
    """Return a number with its unit; bytes as GiB."""
    return f"{_figures(value / 2**30)} GiB" if unit == "bytes" else f"{_figures(value)} {unit}"

"""`unilens report RUN` of a cost study: one HTML file, and its tables as CSV."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import require
from ..plan import Plan, presets, read_plan
from ..report.charts import Chart, Mark, apart, log_axis, polyline
from ..report.pages import render, write_all
from ..report.tables import as_csv
from ..report.toml import plan_as_toml
from ..rows import COSTS, OK, Row
from ..store import Store
from .design import BOTH, YARDSTICKS
from .driver import measure_driver
from .fits import LEVEL
from .projection import Limits, Projection, Workload, project, what_breaks
from .scaling import CPU_SECONDS, MEMORY, SECONDS, VARIED, Scaling, Study

FILES = ("report.html", "cost.csv", "laws.csv")
"""What `write_cost_report` writes."""
DEVICES = (1, 4, 16, 64)
SPEED_UPS = (None, 10.0, 50.0)
_WEEK = 168.0
_LABEL = 13
_MEBIBYTE = 2**20
LAWS = (
    *("model", "method", "what", "against", "law", "a", "b", "interval_low", "interval_high"),
    *("r_squared", "worst_residual", "n", "first", "last", "refused"),
)
_AXES = {
    "resolution": "pixels a side (log scale)",
    "n_steps": "number of steps (log scale)",
    "batch": "images per call (log scale)",
}


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of a workload on some devices: by speed-up, of maps alone and with metrics."""

    devices: int
    maps: list[float]
    all: list[float]


def write_cost_report(
    store: Store,
    folder: Path,
    *,
    workload: Workload | None = None,
    limits: Limits | None = None,
    run: Store | None = None,
) -> list[Path]:
    """Write the report of a cost study; one that is there is replaced.

    Args:
        store: the study's run.
        folder: to write to; it is made where it does not exist.
        workload: what is projected; 50,000 images and the paper's metrics by default.
        limits: what a run may take; a week, an hour to resume, and the memory of the machine that
            was measured by default.
        run: a benchmark whose rows say how many bytes one takes on disk.

    Returns:
        The files: `FILES`.

    Raises:
        UnilensError: nothing is measured yet, or the folder cannot be written.
    """
    study = Study(store.plan, store.costs())
    require(
        bool(study.measured),
        f"expected measurements in {store.folder}, got none yet; unilens benchmark makes them",
    )
    scalings = study.scalings()
    said = context(store, study, scalings, workload or papers_workload(), limits, run)
    texts = {
        "report.html": render("cost.html", said),
        "cost.csv": cost_csv(study),
        "laws.csv": laws_csv(scalings),
    }
    return write_all(folder, texts)


def papers_workload() -> Workload:
    """Return 50,000 images with the metrics of the preset `paper`."""
    return Workload(metrics=read_plan(presets()["paper"]).metrics)


def context(
    store: Store,
    study: Study,
    scalings: Sequence[Scaling],
    workload: Workload,
    limits: Limits | None,
    run: Store | None,
) -> dict[str, Any]:
    """Return what the page says, as the template takes it."""
    session = store.manifest["sessions"][-1]
    machine = session["hardware"]["memory_bytes"]
    limits = limits or Limits(_WEEK, 1.0, machine, machine)
    judged = project(study, workload, run)
    driver = measure_driver(_as_benchmark(study.plan, workload))
    return {
        "name": store.folder.resolve().name,
        "plan": study.plan,
        "cost": study.cost,
        "hardware": session["hardware"],
        "loads": [row["load"] for row in study.rows if row["load"] is not None],
        "memory_of": sorted({row["memory_of"] or "" for row in study.rows if row["status"] == OK}),
        "centre": {model: _at_centre(study, model) for model in study.plan.models},
        "charts": {
            model: [
                chart
                for what in (SECONDS, MEMORY)
                for varied in VARIED
                if (chart := growth(study, model, what, varied))
            ]
            for model in study.plan.models
        },
        "scalings": scalings,
        "level": round(100 * LEVEL),
        "workload": workload,
        "projection": judged,
        "models": list(judged.metric_hours),
        "device": "core" if study.clock == CPU_SECONDS else "device",
        "by_method": _by_method(study, judged),
        "passes": [
            (model, [study.pass_seconds(model, one) for one in YARDSTICKS])
            for model in judged.metric_hours
        ],
        "yardsticks": YARDSTICKS,
        "speed_ups": SPEED_UPS,
        "hours": hours(study, workload),
        "limits": limits,
        "driver": driver,
        "breaking": what_breaks(judged, workload, driver, limits),
        "missing": [row for row in study.rows if row["status"] != OK],
        "toml": plan_as_toml(study.plan),
        "sessions": [
            (str(one.get("began", "")), json.dumps(one, indent=2, ensure_ascii=False))
            for one in store.manifest["sessions"]
        ],
    }


def _as_benchmark(plan: Plan, workload: Workload) -> Plan:
    """Return the plan of a benchmark whose rows have the names that the workload's would have."""
    said = {"methods": plan.methods, "settings": plan.settings}
    models = workload.models or (plan.cost and plan.cost.also) or plan.models
    judged = {"metrics": workload.metrics} if workload.metrics else {}
    return Plan.model_validate({**said, **judged, "models": models})


def _at_centre(study: Study, model: str) -> list[dict[str, Any]]:
    found = [study.at(model, method) for method in (*YARDSTICKS, *study.plan.methods)]
    return [
        row
        | {
            "each": row["seconds"] / row["batch"],
            "cpu": row["cpu_seconds"] / row["batch"],
            "multiple": study.bare_multiple(row),
        }
        for row in found
        if row is not None
    ]


def _by_method(study: Study, projection: Projection) -> list[tuple[str, int | None, float, float]]:
    """Return method, number of steps, hours under all models, and their share."""
    found = []
    for method in dict.fromkeys(method for _, method in projection.map_hours):
        mine = sum(value for (_, one), value in projection.map_hours.items() if one == method)
        found.append((method, study.usual_steps(method), mine, projection.share_of(method)))
    return sorted(found, key=lambda one: -one[2])


def hours(study: Study, workload: Workload) -> list[Hours]:
    """Return the hours of a workload by number of devices and speed-up."""
    bare = replace(workload, metrics=())

    def of(load: Workload, devices: int) -> list[float]:
        return [
            project(study, replace(load, devices=devices, speed_up=one)).hours for one in SPEED_UPS
        ]

    return [Hours(count, of(bare, count), of(workload, count)) for count in DEVICES]


def growth(study: Study, model: str, what: str, varied: str) -> Chart | None:
    """Return a cost against what was varied, one line per method; None without a line."""
    lines = {
        method: points
        for method in (BOTH, *study.plan.methods)
        if len(points := _points(study, model, method, what, varied)) > 1
    }
    if not lines:
        return None
    height = max(260, _LABEL * len(lines) + 20)
    seen = [point for points in lines.values() for point in points]
    x, y = log_axis([a for a, _ in seen], 60, 380), log_axis([b for _, b in seen], height, 12)
    places = apart([y.at(points[-1][1]) for points in lines.values()], _LABEL, 8, height)
    marks = [
        Mark(
            method,
            x.at(points[-1][0]),
            y.at(points[-1][1]),
            place,
            "level",
            method.startswith("uni"),
            f"{method}: " + ", ".join(f"{b:.3g} at {a:g}" for a, b in points),
            line=polyline([(x.at(a), y.at(b)) for a, b in points]),
        )
        for (method, points), place in zip(lines.items(), places, strict=True)
    ]
    unit = "seconds per image" if what == SECONDS else "MiB above the loaded model"
    told = f"{unit} against {_AXES[varied]}, {len(lines)} lines; the numbers are in cost.csv."
    return Chart(600, height + 45, x, y, marks, _AXES[varied], f"{unit} (log scale)", told)


def _points(
    study: Study, model: str, method: str, what: str, varied: str
) -> list[tuple[float, float]]:
    """Return what a logarithmic axis can show."""
    rows = [row for row in study.along(model, method, varied) if row[what]]
    if what == SECONDS:
        return [(row[varied], row[what] / row["batch"]) for row in rows]
    return [(row[varied], row[what] / _MEBIBYTE) for row in rows]


def cost_csv(study: Study) -> str:
    """Return `cost.csv`: one line per measurement."""
    columns = [*COSTS.names, "seconds_per_image", "bare_passes"]
    return as_csv(columns, [_line(study, row) for row in study.rows])


def _line(study: Study, row: Row) -> list[object]:
    each = None if row["seconds"] is None else row["seconds"] / row["batch"]
    return [*(row[name] for name in COSTS.names), each, study.bare_multiple(row)]


def laws_csv(scalings: Sequence[Scaling]) -> str:
    """Return `laws.csv`: one line per fit, and per refusal."""
    rows = []
    for one in scalings:
        start = (one.model, one.method, one.what, one.against)
        fit = one.fit
        numbers = (
            [None] * 10
            if fit is None
            else [
                *(fit.law, fit.a, fit.b, fit.low, fit.high, fit.r_squared, fit.worst, fit.n),
                *(fit.first, fit.last),
            ]
        )
        rows.append((*start, *numbers, one.refused))
    return as_csv(LAWS, rows)

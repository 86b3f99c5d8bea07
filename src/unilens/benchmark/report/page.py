"""`unilens report RUN`: one HTML file, and tables as CSV and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tomli_w

from ...errors import require
from ...metrics import metrics
from ..plan import Plan
from ..store import MOST_DIGESTED, Store
from . import findings, paper, tables
from .cells import Cells, Cost, Curve
from .charts import cost_against_quality, intervals, panels, steps
from .findings import Result, result_of
from .gallery import gallery
from .pages import condition, render, write_all
from .queries import opened
from .statistics import LEVEL, RESAMPLES, analyse

FILES = ("report.html", "summary.csv", "tests.csv", "summary.tex")
"""What `write_report` writes."""
_MOST_LISTED = 100
"""Reasons and warnings that are listed; of more, it is said how many there are."""


def write_report(store: Store, folder: Path) -> list[Path]:
    """Write the report of a run; one that is there is replaced.

    Args:
        store: the run.
        folder: to write to; it is made where it does not exist.

    Returns:
        The files: `FILES`.

    Raises:
        UnilensError: there are no rows yet, they cannot be read, or the folder cannot be written.
    """
    with opened(rows=store) as connection:
        cells = Cells(connection, store.plan)
        require(
            bool(cells.images()),
            f"expected rows in {store.folder}, got none yet; unilens benchmark makes them",
        )
        results = results_of(cells, store.plan)
        said = _context(store, cells, results)
        costs = cells.costs()
    texts = {
        "report.html": render("report.html", said),
        "summary.csv": tables.summary_csv(store.plan, results, costs),
        "tests.csv": tables.tests_csv(results),
        "summary.tex": tables.summary_tex(store.plan, results),
    }
    return write_all(folder, texts)


def plan_as_toml(plan: Plan) -> str:
    """Return a plan as TOML, which `unilens benchmark` takes."""
    return tomli_w.dumps(plan.model_dump(mode="json", exclude_none=True))


def results_of(cells: Cells, plan: Plan) -> list[Result]:
    """Return all families of a run with their statistics."""
    return [
        result_of(family, plan.card(family.metric), analyse(family, plan.seed))
        for family in cells.families()
    ]


def _context(store: Store, cells: Cells, results: Sequence[Result]) -> dict[str, Any]:
    plan, counts, images = store.plan, cells.count(), cells.images()
    main = cells.conditions[0]
    shown = [one for one in results if (one.family.corruption, one.family.severity) == main]
    ours = [text for text, spec in plan.method_specs.items() if spec.name.startswith("uni")]
    costs, parts = cells.costs(), cells.parts(*main)
    of_paper = any(
        tables.papers_figure(plan, one, method.method) for one in shown for method in one.summaries
    )
    planned = max(images, store.manifest.get("images", 0)) * len(plan.data.changes)
    expected = planned * len(plan.models) * len(plan.methods) * len(plan.metrics)
    rows = sum(counts.values())
    reasons = cells.reasons()
    return {
        "name": store.folder.resolve().name,
        "plan": plan,
        "counts": counts,
        "images": images,
        "rows": rows,
        "expected": expected,
        "conditions": cells.conditions,
        "main": condition(*main),
        "ours": ours,
        "overall": findings.overall(shown),
        "about_uni": findings.uni_against_others(shown, ours),
        "remarks": findings.remarks(plan, shown, images, counts.get("failed", 0)),
        "metrics": [_of_metric(plan, parts, results, one, costs, ours) for one in plan.metrics],
        "costs": _costs_table(plan, costs),
        "metric_seconds": cells.metric_seconds(),
        "curves": _curves(plan, cells.curves(*main), ours),
        "steps": _steps(parts, ours),
        "accuracy": [
            (condition(corruption, severity), *rest)
            for corruption, severity, *rest in cells.accuracy()
        ],
        "gallery": gallery(plan, cells, *main),
        "rank_by": plan.rank_by or plan.metrics[0],
        "reasons": reasons[:_MOST_LISTED],
        "reasons_left": max(0, len(reasons) - _MOST_LISTED),
        "warnings": cells.warnings()[:_MOST_LISTED],
        "paper_notes": paper.notes() if of_paper else [],
        "paper_source": paper.SOURCE,
        "sessions": [_pretty(session) for session in store.manifest["sessions"]],
        "toml": plan_as_toml(plan),
        "method_settings": cells.settings("method"),
        "metric_settings": cells.settings("metric"),
        "digest": store.digest() if rows <= MOST_DIGESTED else None,
        "level": round(LEVEL * 100),
        "resamples": RESAMPLES,
    }


def _of_metric(
    plan: Plan,
    parts: Sequence[Any],
    results: Sequence[Result],
    metric: str,
    costs: Sequence[Cost],
    ours: Sequence[str],
) -> dict[str, Any]:
    """Return all that is shown of one metric: a table per condition, charts for the first."""
    found = [one for one in results if one.family.metric == metric]
    blocks: list[dict[str, Any]] = []
    for key, group in groupby(found, lambda one: (one.family.corruption, one.family.severity)):
        block = list(group)
        blocks.append({"name": condition(*key), "results": block, "rows": _table(plan, block)})
    first: list[Result] = blocks[0]["results"] if blocks else []
    drawn = []
    for one in first:
        spent = {cost.method: cost for cost in costs if cost.model == one.family.model}
        drawn.append(
            {
                "result": one,
                "intervals": intervals(one, ours),
                "cost": cost_against_quality(one, spent, ours),
                "matrix": _matrix(one),
            }
        )
    card = plan.card(metric)
    return {
        "name": metric,
        "card": card,
        "summary": metrics[card.name].card.summary,
        "arrow": tables.ARROWS[card.higher_is_better],
        "blocks": blocks,
        "drawn": drawn,
        "parts": _parts(plan, parts, metric),
    }


def _table(plan: Plan, results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the rows of a table, methods by models; a method without rows is left out."""
    rows = []
    for method in plan.methods:
        row = []
        for result in results:
            one = next((one for one in result.summaries if one.method == method), None)
            row.append(
                one
                and {
                    "summary": one,
                    "standing": result.standing(method),
                    "paper": tables.papers_figure(plan, result, method),
                }
            )
        if any(row):
            rows.append({"method": method, "cells": row})
    return rows


def _matrix(result: Result) -> list[list[tuple[str, str]]]:
    """Return, for every two methods, a sign seen from the row's method, and the numbers."""
    names = [one.method for one in result.summaries]
    pairs = {(one.first, one.second): one for one in result.pairs}
    signs = {1: "▲", -1: "▼"} if result.card.higher_is_better is not False else {1: "▼", -1: "▲"}
    made = []
    for row in names:
        line = []
        for column in names:
            pair = pairs.get((row, column)) or pairs.get((column, row))
            if pair is None or not pair.n:
                line.append(("" if row == column else "?", ""))
                continue
            pair = pair.seen_from(row)
            sign = signs[1 if (pair.effect or 0) > 0 else -1] if pair.told_apart else "·"
            p = "" if pair.adjusted is None else f", p {pair.adjusted:.2g}"
            numbers = f"{tables.number(pair.difference)}{p}, n {pair.n}"
            line.append(("=" if pair.same else sign, numbers))
        made.append(line)
    return made


def _parts(plan: Plan, parts: Sequence[Any], metric: str) -> list[dict[str, Any]]:
    """Return the means of a metric's parts: methods by parts, per model."""
    found = {
        (model, method, part): mean
        for model, name, method, part, _, mean in parts
        if name == metric
    }
    names = sorted({part for _, _, part in found}, key=_natural)
    blocks = []
    for model in plan.models:
        rows = [
            (method, [found.get((model, method, part)) for part in names])
            for method in plan.methods
            if any((model, method, part) in found for part in names)
        ]
        if rows:
            blocks.append({"model": model, "names": names, "rows": rows})
    return blocks


def _natural(part: str) -> tuple[int, str]:
    head = part.partition("_")[0]
    return (int(head) if head.isdigit() else 0, part)


def _costs_table(plan: Plan, costs: Sequence[Cost]) -> list[tuple[str, list[Cost | None]]]:
    by_place = {(one.method, one.model): one for one in costs}
    rows = [
        (method, [by_place.get((method, model)) for model in plan.models])
        for method in plan.methods
    ]
    return [row for row in rows if any(row[1])]


def _curves(plan: Plan, found: Sequence[Curve], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Return small charts, for each metric, curve and model."""
    groups: dict[tuple[str, str, str], list[Curve]] = {}
    for one in sorted(found, key=lambda one: plan.methods.index(one.method)):
        groups.setdefault((one.metric, one.name, one.model), []).append(one)
    order = sorted(
        groups, key=lambda key: (plan.metrics.index(key[0]), key[1], plan.models.index(key[2]))
    )
    return [
        {"metric": key[0], "name": key[1], "model": key[2], "panels": panels(groups[key], ours)}
        for key in order
    ]


def _steps(parts: Sequence[Any], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Return a chart per metric and model whose parts are numbers of steps."""
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for model, metric, method, part, _, mean in parts:
        count, _, word = part.partition("_")
        if word == "steps" and count.isdigit():
            means = found.setdefault((metric, model), {}).setdefault(method, {})
            means[int(count)] = mean
    return [
        {"metric": metric, "model": model, "chart": steps(found[metric, model], ours)}
        for metric, model in found
    ]


def _pretty(said: Mapping[str, Any]) -> tuple[str, str]:
    return str(said.get("began", "")), json.dumps(said, indent=2, ensure_ascii=False)

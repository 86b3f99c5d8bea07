"""`unilens report RUN`: one HTML file, and tables as CSV and LaTeX."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import tomli_w

from ...diagnostics import WARNINGS
from ...errors import require
from ...methods import methods
from ...metrics import metrics
from ...output.levels import LEVEL_STYLES, warning_lines
from ..plan import Plan
from ..store import DIGEST_LIMIT, Store
from . import findings, paper, ranks, tables
from .cells import Cells, MapCost, MeanCurve
from .charts import cost_against_quality, intervals, panels, steps
from .findings import Result, result_of
from .gallery import gallery
from .pages import condition, render, write_all
from .queries import opened
from .rank_diagram import rank_diagram
from .statistics import LEVEL, RESAMPLES, analyse

FILES = ("report.html", "summary.csv", "tests.csv", "ranks.csv", "summary.tex")
"""What `write_report` writes."""
_MAX_LISTED = 100
"""Reasons and warnings that are listed; the number of further ones is given."""


def write_report(store: Store, folder: Path) -> list[Path]:
    """Write the report of a run; an existing one is replaced.

    Args:
        store: the run.
        folder: to write to; created where it does not exist.

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
        results = [
            result_of(family, store.plan.card(family.metric), analyse(family, store.plan.seed))
            for family in cells.families()
        ]
        context = _context(store, cells, results)
        costs = cells.costs()
    texts = {
        "report.html": render("report.html", context),
        "summary.csv": tables.summary_csv(store.plan, results, costs),
        "tests.csv": tables.tests_csv(results),
        "ranks.csv": tables.as_csv(ranks.COLUMNS, _rank_rows(store.plan, context["ranking"])),
        "summary.tex": tables.summary_tex(store.plan, results),
    }
    return write_all(folder, texts)


def plan_as_toml(plan: Plan) -> str:
    """Return a plan as TOML, which `unilens benchmark` takes."""
    return tomli_w.dumps(plan.model_dump(mode="json", exclude_none=True))


def _sources(plan: Plan, texts: Sequence[str]) -> list[str]:
    """Return where each method comes from; `uni_blur` is not the published one."""
    names = dict.fromkeys(plan.method_specs[text].name for text in texts)
    return [f"{name}: {methods[name].card.reference}." for name in names]


def _context(store: Store, cells: Cells, results: Sequence[Result]) -> dict[str, Any]:
    plan, counts, images = store.plan, cells.count(), cells.images()
    main = cells.conditions[0]
    main_results = [r for r in results if (r.family.corruption, r.family.severity) == main]
    ours = [text for text, spec in plan.method_specs.items() if spec.name.startswith("uni")]
    costs, parts = cells.costs(), cells.parts(*main)
    of_paper = any(
        tables.paper_figure(plan, result, summary.method)
        for result in main_results
        for summary in result.summaries
    )
    planned = max(images, store.manifest.get("images", 0)) * len(plan.data.conditions)
    expected = planned * len(plan.models) * len(plan.methods) * len(plan.metrics)
    rows = sum(counts.values())
    reasons = cells.reasons()
    warnings = _by_level(cells.warnings())[:_MAX_LISTED]
    ranked = ranks.ranking(main_results)
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
        "overall": findings.overall(main_results),
        "about_uni": [*findings.uni_against_others(main_results, ours), *_sources(plan, ours)],
        "ranking": ranked,
        "rank_diagram": ranked and rank_diagram(ranked, ours),
        "ranks_of": ranked and ranked.of(plan.models, plan.metrics),
        "remarks": [
            *findings.remarks(plan, main_results, images, counts.get("failed", 0)),
            *filter(None, [store.remark]),
        ],
        "metrics": [_metric_section(plan, parts, results, m, costs, ours) for m in plan.metrics],
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
        "reasons": reasons[:_MAX_LISTED],
        "reasons_left": max(0, len(reasons) - _MAX_LISTED),
        "warnings": warnings,
        "meanings": warning_lines({name for *_, name, _ in warnings} & WARNINGS.keys()),
        "paper_notes": paper.notes() if of_paper else [],
        "paper_source": paper.SOURCE,
        "sessions": [_pretty(session) for session in store.manifest["sessions"]],
        "toml": plan_as_toml(plan),
        "method_settings": cells.settings("method"),
        "metric_settings": cells.settings("metric"),
        "digest": store.digest() if rows <= DIGEST_LIMIT else None,
        "level": round(LEVEL * 100),
        "resamples": RESAMPLES,
    }


def _rank_rows(plan: Plan, ranked: ranks.Ranking | None) -> list[list[object]]:
    return [] if ranked is None else list(ranks.rank_rows(ranked, plan.models, plan.metrics))


def _by_level(
    warnings: Sequence[tuple[str, str, str, int]],
) -> list[tuple[str, str, str, str, int]]:
    """Return model, method, level, warning and number of maps, the highest level first.

    Names that this version does not have come last, with the level unknown.
    """
    levels = {level: f"{style.symbol} {level}" for level, style in LEVEL_STYLES.items()}
    order = [*reversed(levels.values()), "unknown"]
    rows = [
        (
            model,
            method,
            levels[WARNINGS[name].level] if name in WARNINGS else "unknown",
            name,
            count,
        )
        for model, method, name, count in warnings
    ]
    return sorted(rows, key=lambda row: order.index(row[2]))


def _metric_section(
    plan: Plan,
    parts: Sequence[Any],
    results: Sequence[Result],
    metric: str,
    costs: Sequence[MapCost],
    ours: Sequence[str],
) -> dict[str, Any]:
    """Return the section of a metric: a table per condition, charts for the first."""
    own = [result for result in results if result.family.metric == metric]
    blocks: list[dict[str, Any]] = []
    for key, group in groupby(
        own, lambda result: (result.family.corruption, result.family.severity)
    ):
        block = list(group)
        blocks.append({"name": condition(*key), "results": block, "rows": _table(plan, block)})
    first: list[Result] = blocks[0]["results"] if blocks else []
    drawn = []
    for result in first:
        model_costs = {cost.method: cost for cost in costs if cost.model == result.family.model}
        drawn.append(
            {
                "result": result,
                "intervals": intervals(result, ours),
                "cost": cost_against_quality(result, model_costs, ours),
                "matrix": _matrix(result),
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
            summary = next((s for s in result.summaries if s.method == method), None)
            row.append(
                summary
                and {
                    "summary": summary,
                    "standing": result.standing(method),
                    "paper": tables.paper_figure(plan, result, method),
                }
            )
        if any(row):
            rows.append({"method": method, "cells": row})
    return rows


def _matrix(result: Result) -> list[list[tuple[str, str]]]:
    """Return a sign, relative to the row's method, and numbers for all pairs of methods."""
    names = [summary.method for summary in result.summaries]
    pairs = {(pair.first, pair.second): pair for pair in result.pairs}
    signs = {1: "▲", -1: "▼"} if result.card.higher_is_better is not False else {1: "▼", -1: "▲"}
    matrix = []
    for row in names:
        line = []
        for column in names:
            pair = pairs.get((row, column)) or pairs.get((column, row))
            if pair is None or not pair.n:
                line.append(("" if row == column else "?", ""))
                continue
            pair = pair.starting_with(row)
            sign = signs[1 if (pair.effect or 0) > 0 else -1] if pair.significant else "·"
            p = "" if pair.adjusted is None else f", p {pair.adjusted:.2g}"
            numbers = f"{tables.number(pair.difference)}{p}, n {pair.n}"
            line.append(("=" if pair.same else sign, numbers))
        matrix.append(line)
    return matrix


def _parts(plan: Plan, parts: Sequence[Any], metric: str) -> list[dict[str, Any]]:
    """Return the means of a metric's parts, methods by parts, per model."""
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
    return (int(head) if _is_count(head) else 0, part)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _costs_table(plan: Plan, costs: Sequence[MapCost]) -> list[tuple[str, list[MapCost | None]]]:
    by_key = {(cost.method, cost.model): cost for cost in costs}
    rows = [
        (method, [by_key.get((method, model)) for model in plan.models]) for method in plan.methods
    ]
    return [row for row in rows if any(row[1])]


def _curves(plan: Plan, curves: Sequence[MeanCurve], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Return small charts by metric, curve and model."""
    groups: dict[tuple[str, str, str], list[MeanCurve]] = {}
    for curve in sorted(curves, key=lambda curve: plan.methods.index(curve.method)):
        groups.setdefault((curve.metric, curve.name, curve.model), []).append(curve)
    order = sorted(
        groups, key=lambda key: (plan.metrics.index(key[0]), key[1], plan.models.index(key[2]))
    )
    return [
        {"metric": key[0], "name": key[1], "model": key[2], "panels": panels(groups[key], ours)}
        for key in order
    ]


def _steps(parts: Sequence[Any], ours: Sequence[str]) -> list[dict[str, Any]]:
    """Return a chart per metric and model whose parts are step counts."""
    found: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for model, metric, method, part, _, mean in parts:
        count, _, word = part.partition("_")
        if word == "steps" and _is_count(count):
            means = found.setdefault((metric, model), {}).setdefault(method, {})
            means[int(count)] = mean
    return [
        {"metric": metric, "model": model, "chart": steps(found[metric, model], ours)}
        for metric, model in found
    ]


def _pretty(session: Mapping[str, Any]) -> tuple[str, str]:
    return str(session.get("began", "")), json.dumps(session, indent=2, ensure_ascii=False)

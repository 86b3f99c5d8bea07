"""The statistics as CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

from ...output.text import csv_cell, latex
from ..plan import Plan
from . import paper
from .cells import MapCost
from .findings import Result
from .statistics import Summary

_SMALLEST_SHOWN = 0.0005
_LARGEST_SHOWN = 10000
ARROWS = {True: "↑", False: "↓", None: ""}
_LATEX_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$", None: ""}
SUMMARY = (
    *("corruption", "severity", "model", "metric", "higher_is_better", "method", "n"),
    *("undefined", "inapplicable", "failed", "mean", "sd", "median", "interval_low"),
    *("interval_high", "standing", "map_seconds", "forward", "backward", "paper_mean"),
    *("paper_sd", "paper_table", "paper_note"),
)
TESTS = (
    *("corruption", "severity", "model", "metric", "first", "second", "n", "mean_difference"),
    *("interval_low", "interval_high", "rank_biserial", "p", "p_holm", "significant"),
)


def number(value: float | None) -> str:
    """Return a number with three decimals, or as a power of ten where they do not suffice."""
    if value is None:
        return "–"
    if 0 < abs(value) < _SMALLEST_SHOWN or abs(value) >= _LARGEST_SHOWN:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:.3f}".replace("-", "−")


def exact(value: object) -> object:
    """Return a CSV cell: empty for None, all digits of a number, and no formula."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else csv_cell(value)


def as_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, columns))
    writer.writerows([exact(value) for value in row] for row in rows)
    return text.getvalue()


def paper_figure(plan: Plan, result: Result, method: str) -> paper.Figure | None:
    """Return the paper's figure for a method; None for corrupted images or untrained models."""
    family = result.family
    if family.corruption or plan.random_weights:
        return None
    return paper.figure(family.model, plan.method_specs[method], plan.metric_specs[family.metric])


def summary_csv(plan: Plan, results: Iterable[Result], costs: Sequence[MapCost]) -> str:
    """Return `summary.csv`: one line per corruption, severity, model, metric and method."""
    costs_by_key = {(cost.model, cost.method): cost for cost in costs}
    rows = []
    for result in results:
        family = result.family
        for summary in result.summaries:
            cost = costs_by_key.get((family.model, summary.method))
            figure = paper_figure(plan, result, summary.method)
            rows.append(
                (
                    *(family.corruption, family.severity, family.model, family.metric),
                    *(result.card.higher_is_better, summary.method),
                    *(summary.n, summary.undefined, summary.inapplicable, summary.failed),
                    *(summary.mean, summary.sd, summary.median, summary.low, summary.high),
                    result.standing(summary.method),
                    *((cost.seconds, cost.forward, cost.backward) if cost else [None] * 3),
                    *(
                        (figure.mean, figure.sd, figure.table, figure.note)
                        if figure
                        else [None] * 4
                    ),
                )
            )
    return as_csv(SUMMARY, rows)


def tests_csv(results: Iterable[Result]) -> str:
    """Return `tests.csv`: one line per pair of methods."""
    return as_csv(
        TESTS,
        [
            (
                *(result.family.corruption, result.family.severity),
                *(result.family.model, result.family.metric),
                *(pair.first, pair.second, pair.n, pair.difference, pair.low, pair.high),
                *(pair.effect, pair.p, pair.adjusted, pair.significant),
            )
            for result in results
            for pair in result.pairs
        ],
    )


def summary_tex(plan: Plan, results: Sequence[Result]) -> str:
    """Return `summary.tex`: a table per metric and condition, methods by models, for booktabs."""
    grouped: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        family = result.family
        key = (family.metric, family.corruption, family.severity)
        grouped.setdefault(key, []).append(result)
    tables = [
        _latex_table(plan, *key, {result.family.model: result for result in group})
        for key, group in grouped.items()
    ]
    heading = (
        "% Mean and standard deviation over images; below, the 95 % bootstrap interval of the "
        "mean.\n% Bold: the best mean. Dagger: no significant difference from it (Wilcoxon "
        "signed-rank, Holm).\n% Needs \\usepackage{booktabs} and the T1 font encoding.\n"
    )
    return heading + "\n" + "\n".join(tables)


def _latex_table(
    plan: Plan, metric: str, corruption: str, severity: int, results: Mapping[str, Result]
) -> str:
    first = next(iter(results.values()))
    changed = f", {latex(corruption)}, severity {severity}" if corruption else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(metric)} {_LATEX_ARROWS[first.card.higher_is_better]}{changed}}}",
        rf"\begin{{tabular}}{{l{'c' * len(results)}}}",
        r"\toprule",
        " & ".join(["method", *(latex(model) for model in results)]) + r" \\",
        r"\midrule",
    ]
    for method in plan.methods:
        cells = [_latex_cell(result, method) for result in results.values()]
        if any(above for above, _ in cells):
            lines.append(" & ".join([latex(method), *(above for above, _ in cells)]) + r" \\")
            lines.append(" & ".join(["", *(below for _, below in cells)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_cell(result: Result, method: str) -> tuple[str, str]:
    """Return the two lines of a cell: mean ± sd, and the interval."""
    summary = next((s for s in result.summaries if s.method == method), None)
    if summary is None or summary.mean is None:
        return "", ""
    standing = result.standing(method)
    mean = latex_number(summary.mean)
    mean = rf"\mathbf{{{mean}}}" if standing == "leader" else mean
    deviation = "" if summary.sd is None else rf" \pm {latex_number(summary.sd)}"
    mark = r"^{\dagger}" if standing == "level" else ""
    return f"${mean}{deviation}{mark}$", _latex_interval(summary)


def _latex_interval(summary: Summary) -> str:
    if summary.low is None or summary.high is None:
        return ""
    return rf"{{\scriptsize $[{latex_number(summary.low)}, {latex_number(summary.high)}]$}}"


def latex_number(value: float) -> str:
    """Return a number as LaTeX prints it in a formula."""
    text = number(value).replace("−", "-")
    mantissa, power, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if power else text

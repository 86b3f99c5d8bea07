"""The paper's figures beside those of a run: rows, CSV, LaTeX and BibTeX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import require
from ...output.records import free_paths, write_text
from ...output.text import latex
from ..plan import Plan
from ..store import Store
from . import paper
from .cells import Cells, MapGroup
from .queries import opened
from .statistics import Summary, analyse
from .tables import as_csv, latex_number

SUFFIXES = (".csv", ".tex", ".bib")
_COLUMNS = (
    "model",
    "method",
    "metric",
    "paper_mean",
    "paper_sd",
    "mean",
    "sd",
    "interval_low",
    "interval_high",
    "n",
    "random_weights",
    "note",
)
_RANDOM = "random weights: a trial, not a result"
BIBTEX = """\
@inproceedings{choi2025unlearning,
  title     = {Unlearning-based Neural Interpretations},
  author    = {Choi, Ching Lam and Duplessis, Alexandre and Belongie, Serge},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2025},
  note      = {arXiv:2410.08069}
}

@software{unilens,
  title   = {unilens},
  author  = {{The unilens authors}},
  version = {VERSION},
  year    = {2026},
  license = {Apache-2.0}
}
"""


@dataclass(frozen=True, slots=True)
class Comparison(MapGroup):
    """A cell of the paper's table beside the run's own.

    Attributes:
        metric: by name.
        paper: the paper's figure.
        own: the run's; None where it has no rows.
    """

    metric: str
    paper: paper.Figure
    own: Summary | None


def comparisons(store: Store) -> list[Comparison]:
    """Return the paper's figures beside those of a run, in the plan's order.

    Raises:
        UnilensError: the run has no rows.
    """
    plan = store.plan
    own: dict[tuple[str, str, str], Summary] = {}
    with opened(rows=store) as connection:
        cells = Cells(connection, plan)
        require(bool(cells.images()), f"expected rows in {store.folder}, got none yet")
        for family in cells.families():
            for summary in analyse(family, plan.seed)[0]:
                own[family.model, summary.method, family.metric] = summary
    return [
        Comparison(model, method, metric, figure, own.get((model, method, metric)))
        for metric, metric_spec in plan.metric_specs.items()
        for model in plan.models
        for method, method_spec in plan.method_specs.items()
        if (figure := paper.figure(model, method_spec, metric_spec)) is not None
    ]


def write_comparisons(
    store: Store, folder: Path, table: int, version: str
) -> tuple[list[Comparison], Path]:
    """Write the comparison as CSV and LaTeX, and whom to cite as BibTeX, numbered where taken.

    Returns:
        The comparison, and the path of the files without their suffixes.
    """
    compared, plan = comparisons(store), store.plan
    (path,) = free_paths(folder, [f"table-{table}"], False, SUFFIXES, numbered=True)
    write_text(path, ".csv", as_csv(_COLUMNS, [_row(known, plan) for known in compared]))
    write_text(path, ".tex", as_latex(compared, plan, table))
    write_text(path, ".bib", BIBTEX.replace("VERSION", version))
    return compared, path


def _row(known: Comparison, plan: Plan) -> tuple[object, ...]:
    own = known.own
    return (
        *(known.model, known.method, known.metric, known.paper.mean, known.paper.sd),
        *((own.mean, own.sd, own.low, own.high, own.n) if own else (None,) * 4 + (0,)),
        *(plan.random_weights, known.paper.note),
    )


def as_latex(compared: Sequence[Comparison], plan: Plan, table: int) -> str:
    """Return a LaTeX table: methods by networks, each cell the paper's mean and the run's."""
    heading = f"% The paper's figures: {paper.SOURCE}. Cells: the paper's mean / this run's.\n"
    if plan.random_weights:
        heading += f"% {_RANDOM}\n"
    notes = "".join(f"% {note}\n" for note in paper.notes())
    return (
        heading
        + notes
        + "\n".join(
            _latex_table(
                [known for known in compared if known.metric == metric], plan, metric, table
            )
            for metric in plan.metrics
        )
    )


def _latex_table(compared: Sequence[Comparison], plan: Plan, metric: str, table: int) -> str:
    cells = {(known.method, known.model): known for known in compared}
    networks = [latex(model.partition(":")[2]) for model in plan.models]
    counts = {known.own.n for known in compared if known.own}
    images = " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "0"
    trial = f"; {_RANDOM}" if plan.random_weights else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{Table {table} of Choi et al. (2025), {latex(metric)}: the paper / this run "
        rf"({images} photographs{trial})}}",
        rf"\begin{{tabular}}{{l{'c' * len(networks)}}}",
        r"\toprule",
        " & ".join(["method", *networks]) + r" \\",
        r"\midrule",
    ]
    for method in plan.methods:
        row = [_latex_cell(cells.get((method, model))) for model in plan.models]
        lines.append(" & ".join([latex(method), *row]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _latex_cell(known: Comparison | None) -> str:
    if known is None:
        return ""
    own = None if known.own is None else known.own.mean
    return f"${latex_number(known.paper.mean)}$ / " + (
        "--" if own is None else f"${latex_number(own)}$"
    )

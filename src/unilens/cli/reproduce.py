"""`unilens reproduce`: a table of the paper, its figures beside those of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import require
from ..specs import split_specs
from . import options
from .app import app, needs_extra
from .benchmark import free_folder
from .output import format_number, progress, show, show_table, show_written

if TYPE_CHECKING:
    from ..benchmark.plan import Plan
    from ..benchmark.report.reproduction import Comparison
    from ..benchmark.reproduction import Needs

_TABLES = 7
"""Of the paper."""
_TRIAL = "Random weights: a trial of the command, not a result."


@app.command()
def reproduce(
    table: Annotated[int, typer.Option(metavar="N", help="Table of the paper, 1 to 7.")],
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Photographs, as for benchmark; the paper has ImageNet's validation.",
        ),
    ],
    labels: options.Labels = None,
    split: options.Split = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Most photographs; the paper has 10,000.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "--models",
            metavar="NAME",
            help="Some of the paper's networks; by default all.",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    random_weights: options.RandomWeights = False,
    out: options.RunFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it needs.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print the LaTeX and BibTeX too.")] = False,
) -> None:
    """Run a table of the UNI paper; print its figures and yours.

    Says first what it needs: photographs, labels, gigabytes, hours. The same command continues an
    interrupted run.
    """
    require(1 <= table <= _TABLES, f"expected --table 1 to {_TABLES}, got {table}")
    with needs_extra("reproduce", "benchmark"):
        from ..benchmark.report.reproduction import SUFFIXES, write_comparisons
        from ..benchmark.reproduction import needs_of, plan_of_table
        from ..benchmark.runner import run
        from ..benchmark.store import Store

    section = {"source": data, "labels": labels, "split": split, "limit": limit or 10_000}
    plan = plan_of_table(
        table,
        models=split_specs(model or []),
        data={key: value for key, value in section.items() if value is not None},
        device=device,
        seed=seed,
        random_weights=random_weights,
    )
    folder = out or free_folder(plan, f"reproduce-table-{table}")
    with progress(len(plan.models)) as bar:
        needs = needs_of(plan, bar.set)
    _show_needs(plan, needs, table, folder)
    if dry_run:
        return
    with progress(None) as bar:

        def on_progress(done: int, planned: int, failed: int, image: str) -> None:
            bar.set(done, planned, image + (f" {failed} failed" if failed else ""))

        outcome = run(plan, folder, on_progress=on_progress)
    compared, path = write_comparisons(
        Store(folder), folder / "compared", table, metadata.version("unilens")
    )
    _show_comparisons(plan, compared)
    for suffix in SUFFIXES[1:] if latex else ():
        show(path.with_name(path.name + suffix).read_text(encoding="utf-8"), highlight=False)
    show_written(path, SUFFIXES)
    if outcome.failed:
        show(f"{outcome.failed} rows failed: {folder / 'log.txt'} says why")
        raise typer.Exit(1)


def _show_needs(plan: Plan, needs: Needs, table: int, folder: Path) -> None:
    """Print what a run needs, before it starts."""
    from ..benchmark.reproduction import PHOTOGRAPHS

    show(
        f": {', '.join(plan.metrics)}; {len(plan.methods)} methods, {len(plan.models)} networks",
        title=f"Table {table} of Choi et al. 2025, arXiv 2410.08069",
        highlight=False,
    )
    downloads = sum(needs.downloads.values())
    weights = f"{downloads / 1e9:.2f} GB to download" if downloads else "nothing to download"
    if needs.downloads:
        weights += f" for {', '.join(name.partition(':')[2] for name in needs.downloads)}"
    rows = [
        ("photographs", f"{needs.photographs} (the paper: {PHOTOGRAPHS}, of ImageNet-1K)"),
        ("labels", f"none needed: the predicted class is explained ({needs.labelled} found)"),
        ("weights", f"random, {weights}" if plan.random_weights else weights),
        ("disk", f"{max(1, round(needs.disk / 1e6))} MB for {needs.rows} results in {folder}"),
        ("time", f"about {_duration(sum(needs.seconds.values()))} here ({_hardware(plan.device)})"),
        *(
            ("", f"{_duration(time)} {name.partition(':')[2]}")
            for name, time in needs.seconds.items()
        ),
    ]
    show_table((), rows)
    show("Rows that the folder has already are not computed again.", highlight=False)


def _show_comparisons(plan: Plan, compared: Sequence[Comparison]) -> None:
    """Print the paper's figures beside the run's, a table for each network."""
    from ..benchmark.report import paper

    for metric in plan.metrics:
        for model in plan.models:
            own = [c for c in compared if (c.model, c.metric) == (model, metric)]
            show()
            trial = ", random weights" if plan.random_weights else ""
            show(f", {model}{trial}", title=metric, highlight=False)
            show_table(
                ("method", "the paper", "yours", "95 % interval", "n"),
                list(map(_row, own)),
                right={1, 2, 3, 4},
                whole={0, 1, 2, 3, 4},
            )
    show()
    if plan.random_weights:
        show(_TRIAL, highlight=False)
    show(f"The paper's figures: {paper.SOURCE}; mean ± standard deviation.", highlight=False)
    for note in paper.notes():
        show(f"  {note}", highlight=False)


def _row(known: Comparison) -> list[str]:
    own = known.own
    theirs = _mean(known.paper.mean, known.paper.sd)
    if own is None or own.mean is None:
        return [known.method, theirs, "-", "-", "0"]
    known_interval = own.low is not None
    interval = f"{format_number(own.low)} … {format_number(own.high)}" if known_interval else "-"
    return [known.method, theirs, _mean(own.mean, own.sd), interval, str(own.n)]


def _mean(mean: float, sd: float | None) -> str:
    return format_number(mean) + ("" if sd is None else f" ± {format_number(sd)}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _hardware(device: str) -> str:
    return f"{os.cpu_count()} cores" if device == "cpu" else device

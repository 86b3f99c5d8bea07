"""`unilens recommend`: which method to use on a model, for which purpose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._catalogue import DEFAULT_MODEL, check_model, listing
from ..errors import require
from ..specs import read_specs, split_specs
from . import options
from .app import app, needs_extra
from .benchmark import free_folder
from .output import progress, show, show_json, show_table, show_written

if TYPE_CHECKING:
    from ..benchmark.plan import Plan
    from ..benchmark.recommend import Recommendation

RECORD = "recommendation"
"""Name of the record's file, without its suffix."""
_LISTED = 6


@app.command()
def recommend(
    data: Annotated[
        str, typer.Option(metavar="FOLDER", help="Photographs: a folder, or as for benchmark.")
    ],
    model: options.Model = DEFAULT_MODEL,
    minutes: Annotated[
        float, typer.Option(metavar="N", help="Of wall time, loading included.")
    ] = 5.0,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "--methods",
            metavar="NAMES",
            help="Only these race; by default all that fit.",
        ),
    ] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--from", metavar="RUN", help="A run whose rows of this model are taken."),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    random_weights: options.RandomWeights = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the rows; by default unilens-out/recommend-DATA."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say which method to use on a model, for which purpose.

    Methods that fit the model race on the photographs, and each verdict says how sure it is. The
    same command continues an interrupted race, and adds to a finished one.
    """
    check_model(model)
    methods = split_specs(method or []) or None
    read_specs(listing("methods"), methods or [])
    require(minutes > 0, f"expected --minutes above 0, got {minutes:g}")
    with needs_extra("recommend", "benchmark"):
        from ..benchmark.recommend import recommend as race
    folder = Path()

    def choose(plan: Plan) -> Path:
        nonlocal folder
        folder = out or free_folder(plan, f"recommend-{Path(data).name or data}")
        return folder

    with progress(100) as bar:
        recommendation = race(
            model,
            data,
            minutes=minutes,
            methods=methods,
            folder=choose,
            earlier=earlier or (),
            seed=seed,
            device=device,
            random_weights=random_weights,
            on_progress=lambda share, current: bar.set(round(100 * share), 100, current),
        )
    from ..output.records import free_paths, write_json

    (path,) = free_paths(folder, [RECORD], False, (".json",), numbered=True)
    write_json(path, recommendation.record())
    if as_json:
        show_json(recommendation.record())
        return
    _show(recommendation)
    show_written(path, (".json",))


def _show(found: Recommendation) -> None:
    """Print the verdicts, the table, and what did not race."""
    from ..benchmark.recommend.words import HEADINGS, LEGEND, cells, seconds, sentence, title

    for verdict in found.verdicts.values():
        show(f". {sentence(verdict, found.unused)}", title=title(verdict), highlight=False)
        if verdict.command:
            show(f"  {verdict.command}", highlight=False)
    show()
    show_table(
        HEADINGS,
        [cells(dict(row)) for row in found.table],
        right={1, 2, 3, 4, 5},
        whole={1, 2, 3, 4, 5},
    )
    show(LEGEND, highlight=False)
    if found.slow:
        times = [f"{name} ({seconds(time)})" for name, time in found.slow.items()]
        show(f"Too slow for {found.minutes:g} minutes, per map: {_listed(times)}", highlight=False)
    reasons: dict[str, list[str]] = {}
    for name, reason in found.left_out.items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        show(f"Left out: {', '.join(names)}: {reason}", highlight=False)
    for name, reason in list(found.broken.items())[:_LISTED]:
        show(f"Not used: {name}: {reason}", highlight=False)
    show(
        f"{found.seconds:.0f} s of {60 * found.minutes:.0f}; {found.known} rows were known",
        highlight=False,
    )


def _listed(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")

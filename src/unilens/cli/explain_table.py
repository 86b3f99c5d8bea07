"""`unilens explain-table`: what each column of a table contributes to a model's output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._catalogue import listing
from ..errors import require
from ..output.text import csv_cell
from ..specs import Spec, read_specs
from . import options, output
from .app import app

if TYPE_CHECKING:
    from ..tables import TableAttribution

_ROWS = 10
"""Rows that are explained where none are named."""
_SHOWN = 5
_TABLES = (".csv", ".parquet")
_PICTURES = (".png", ".svg", ".pdf")


@app.command("explain-table")
def explain_table(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", hidden=True),
    ],
    data: Annotated[Path, typer.Argument(metavar="TABLE", hidden=True)],
    target: options.Target = None,
    label_column: options.LabelColumn = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="See `list methods`; settings can follow."),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Table of typical rows to compare with; by default rows of TABLE."
        ),
    ] = None,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIXES",
            help="Prefixes of one-hot columns to take as one: colour,city. By default they are "
            "detected; none for single columns.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(metavar="LIST", help=f"Rows to explain: 0,5-9; by default the first {_ROWS}."),
    ] = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File of all values, in .csv.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File of a picture, in .png, .svg or .pdf: a waterfall of one row, a beeswarm of "
            "several.",
        ),
    ] = None,
    trust_pickle: options.TrustPickle = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Explain what each column of a table contributes.

    MODEL is py:package.module:name, a model or a function that returns one; or a file: .pt2 of
    torch.export, .joblib or .pkl of an estimator. TABLE is a .csv or .parquet.

    Prints the strongest columns of each row; --out and --picture write files.
    """
    named = read_specs(listing("methods"), [method])[method] if method else Spec("", {})
    settings = {**options.read_shared(set_, score), **named.settings}
    for table in filter(None, (data, references)):
        known = table.suffix.lower() in _TABLES
        require(table.exists() or not known, f"could not read {table}: no such file")
    _check_free(out, (".csv",), overwrite, "--out")
    _check_free(picture, _PICTURES, overwrite, "--picture")
    _check_not_read(out, data, references)
    _check_not_read(picture, data, references)
    from .._validation.inputs import check_seed
    from ..tables import beeswarm, explain, waterfall
    from ..tables.files import load_model, read_rows, read_table, without_column

    check_seed(seed)
    frame = without_column(read_table(data), label_column)
    others = None if references is None else read_table(references)
    numbers = read_rows(rows, len(frame), _ROWS)
    with output.waiting(f"loading {model}"):
        loaded = load_model(model, trust_pickle)
    with output.waiting(f"explaining {len(numbers)} rows"):
        result = explain(
            loaded,
            frame.iloc[numbers],
            _target(loaded, target),
            named.name or None,
            references=_references(frame) if others is None else others,
            groups=_groups(groups),
            outputs=outputs,
            seed=seed,
            **settings,
        )
    chosen = f" rows of {(references or data).name}"
    _show(result, numbers, len(frame), chosen)
    if out is not None:
        long = result.to_frame().map(csv_cell)
        _write(out, lambda name: long.to_csv(name, index=False))
    if picture is not None:
        several = len(result) > 1
        figure = beeswarm(result) if several else waterfall(result, title=f"Row {numbers[0]}")
        _write(picture, lambda name: figure.savefig(name, format=picture.suffix[1:], dpi=110))


def _check_free(path: Path | None, suffixes: tuple[str, ...], overwrite: bool, option: str) -> None:
    """Raise where a file cannot be written: another suffix, no folder, or there already."""
    if path is None:
        return
    require(
        path.suffix.lower() in suffixes,
        f"expected {option} to end in {' or '.join(suffixes)}, got {path.name}",
    )
    require(path.parent.is_dir(), f"expected a folder for {option}, but there is no {path.parent}")
    require(
        overwrite or not path.exists(),
        f"{path} exists already; choose another {option}, or replace it with --overwrite",
    )


def _check_not_read(path: Path | None, *tables: Path | None) -> None:
    """Raise where a file to write is one of the tables that are read."""
    for table in tables:
        if path is None or table is None or not (path.exists() and table.exists()):
            continue
        require(
            not path.samefile(table),
            f"expected another file to write than the tables that are read, got {path}; choose "
            "another name",
        )


def _references(frame: Any) -> Any:
    """Return evenly chosen rows of the data; None where there are too few."""
    count = len(frame)
    if count < 10:
        return None
    import torch

    return frame.iloc[torch.linspace(0, count - 1, min(count, 30)).round().long().tolist()]


def _groups(text: str | None) -> Any:
    if text is None or text == "none":
        return None if text is None else False
    return [prefix.strip() for prefix in text.split(",")]


def _target(model: Any, text: str | None) -> Any:
    """Return a target as an index for models without labels."""
    import torch

    from .._engine.evaluator import Evaluator
    from ..tables.predictors import classes_of

    module = isinstance(model, (torch.nn.Module, Evaluator))
    indexed = module or classes_of(getattr(model, "__self__", model)) is None
    return int(text) if indexed and text is not None and text.isdecimal() else text


def _show(result: TableAttribution, numbers: list[int], count: int, chosen: str) -> None:
    for row, number in enumerate(numbers):
        base = float(result.base[row])
        label = f"{result.target[row]}, " if result.has_classes else ""
        than = "" if base != base else f" (base {output.format_number(base)})"
        value = f"{label}{result.unit} {output.format_number(float(result.score[row]))}{than}"
        output.show(value, title=f"row {number}: ")
        output.show_verdict(result.verdicts[row], result.attribution.warnings[row])
        cells = [
            (f"    {part.name}", part.cell, f"{part.value:+.3g}")
            for part in result.strongest(row, _SHOWN)
        ]
        output.show_table((), cells, right={2}, max_width=60)
        output.show_warnings(result.attribution.warnings[row])
    if len(numbers) < count:
        output.show(f"{len(numbers)} of {count} rows; --rows explains others", highlight=False)
    compared = str(result.provenance["references"]).replace(" references given", chosen)
    output.show(f"{result.provenance['method']}, compared with {compared}", highlight=False)


def _write(path: Path, write_to: Callable[[str], object]) -> None:
    from .._ops.files import write_whole

    write_whole(path.with_suffix(""), path.suffix, write_to)
    output.show_written(path)

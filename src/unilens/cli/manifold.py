"""`unilens manifold`: where the data lie, and whose maps lie there with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .._validation.settings import check_count
from ..benchmark.tangents.fitting import Wanted, fit, open_fitted
from ..benchmark.tangents.report import STEMS, rows_of, short, write_scores
from ..benchmark.tangents.study import BATCH, METHODS, score
from ..errors import require
from ..manifold.files import KINDS
from ..methods import methods
from ..specs import read_settings, read_specs
from . import options
from .app import app
from .output import format_number, progress, show, show_table, show_written, waiting

manifold = typer.Typer(help="Where the data lie, and whose maps lie there too.")
app.add_typer(manifold, name="manifold")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Where the networks are kept.")]
Data = Annotated[
    str | None,
    typer.Option(
        help="digits, mnist5000, or a source of `unilens benchmark`: a folder, torchvision:MNIST."
    ),
]
Dimension = Annotated[int, typer.Option(help="Of the tangent spaces.")]
Epochs = Annotated[int, typer.Option(help="Of each network.")]


@manifold.command("fit")
def fit_(
    folder: Folder,
    data: Data = None,
    kind: Annotated[str, typer.Option(help=f"Of manifold: {', '.join(KINDS)}.")] = Wanted.kind,
    dimension: Dimension = Wanted.dimension,
    width: Annotated[int, typer.Option(help="Channels of the first layer.")] = Wanted.width,
    neighbours: Annotated[int, typer.Option(help="Of local_pca.")] = Wanted.neighbours,
    epochs: Epochs = Wanted.epochs,
    size: Annotated[int | None, typer.Option(help="Pixels a side, of photographs.")] = None,
    limit: Annotated[int | None, typer.Option(help="Images to fit to, at the most.")] = None,
    no_classifier: Annotated[
        bool, typer.Option("--no-classifier", help="Fit the manifold alone.")
    ] = False,
    seed: options.Seed = 0,
) -> None:
    """Fit a manifold to images, and a small classifier to explain.

    FOLDER/manifold.safetensors is what `manifold=` takes, as in
    ig:baseline=tangent_aligned,manifold=FOLDER/manifold.safetensors.
    """
    require(data is not None, "expected --data, such as --data mnist5000")
    assert data is not None
    wanted = Wanted(
        data, kind, dimension, width, neighbours, epochs, size, limit, not no_classifier, seed
    )
    _say_fitted(_fit(wanted, folder), folder)


@manifold.command("score")
def score_(
    folder: Folder,
    data: Data = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="See `list methods`; by default all baselines and gradient methods."),
    ] = None,
    limit: Annotated[int, typer.Option(help="Held-out images, at the most.")] = 100,
    n_steps: Annotated[int, typer.Option(help="Of all path methods.")] = 15,
    set_: options.Settings = None,
    dimension: Dimension = Wanted.dimension,
    epochs: Epochs = Wanted.epochs,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Say how tangential the maps of held-out images are, method by method.

    With --data and a FOLDER that does not exist yet, a manifold and a classifier are fitted first.
    A table is printed; score.json, score.csv and score.png are written to FOLDER.
    """
    for name in STEMS:
        require(
            overwrite or not (folder / name).exists(),
            f"{folder / name} exists already; replace it with --overwrite",
        )
    texts = method or list(METHODS)
    given = read_settings(set_ or [])
    specs = read_specs(methods, texts)
    if any("n_steps" in methods[one.name].settings_with(one.settings) for one in specs.values()):
        given = {"n_steps": n_steps} | given
    shown = [short(text) for text in texts]
    names = {
        text: one if shown.count(one) == 1 else text for text, one in zip(texts, shown, strict=True)
    }
    check_count("limit", limit)
    if data is not None:
        wanted = Wanted(data, dimension=dimension, epochs=epochs, seed=seed)
        _say_fitted(_fit(wanted, folder), folder)
    with waiting("opening the data"):
        fitted = open_fitted(folder)
    with progress(len(texts) * -(-limit // BATCH)) as bar:
        scores = score(
            fitted, texts=texts, limit=limit, settings=given, seed=seed, on_batch=bar.advance
        )
    write_scores(scores, fitted, folder, {**given, "limit": limit, "seed": seed})
    _show_scores(rows_of(scores), scores.random, fitted.about, names)
    show_written(folder / STEMS[0], ("", *STEMS[1:]))


def _fit(wanted: Wanted, folder: Path) -> dict[str, Any]:
    with progress(wanted.steps) as bar:
        return fit(wanted, folder, bar.advance)


def _say_fitted(about: Mapping[str, Any], folder: Path) -> None:
    images = about["images"]
    show(
        f": {images['train']} images, {images['held_out']} held out; {_of_manifold(about)}",
        title=about["wanted"]["data"],
    )
    if "classifier" in about:
        accuracy = about["classifier"]["accuracy_held_out"]
        show(f"  classifier: {accuracy:.1%} of the held-out images are right")
    show(f"  written: {folder}/, {about['seconds']:.0f} s")


def _of_manifold(about: Mapping[str, Any]) -> str:
    known, wanted = about["manifold"], about["wanted"]
    rank = known["rank"]
    ranks = (
        f"{rank['least']}" if rank["least"] == rank["most"] else f"{rank['least']}-{rank['most']}"
    )
    said = f"{wanted['kind']}, rank {ranks}"
    if "held_out" in known:
        held = known["held_out"]
        said += (
            f", error {held['error']:.3f} held out ({held['variance_kept']:.1%} of variance kept)"
        )
    return said


def _show_scores(
    rows: list[dict[str, Any]],
    random: Mapping[str, float],
    about: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:
    headings = ("method", "μ ↑", "95 %", "local μ", "distance", "change")
    cells = [
        (
            names[row["method"]],
            format_number(row["alignment"]) + ("*" if not row["told_apart"] else " "),
            f"{format_number(row['low'])}–{format_number(row['high'])}",
            format_number(row["local_alignment"]),
            format_number(row["distance"], 2),
            format_number(row["score_change"]),
        )
        for row in rows
    ]
    show_table(headings, cells, right=range(1, len(headings)))
    show(
        f"μ: the share of the map in the tangent space ({_of_manifold(about)}); a random map has "
        f"{random['alignment']:.3f}. * the first, or not told apart from it. local μ: under local "
        f"PCA of the training images, random {random['local_alignment']:.3f}. distance, change: l2 "
        "and of the score, from the baseline."
    )

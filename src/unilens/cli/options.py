"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .._catalogue import check_choice, choices
from ..specs import read_settings, split_specs


def one_of(kind: str) -> Callable[[str | None], str | None]:
    """Return what refuses a value that is not among the catalogue's choices of this kind."""

    def check(value: str | None) -> str | None:
        return value if value is None else check_choice(kind, value)

    return check


Images = Annotated[
    list[str] | None,
    typer.Argument(metavar="PHOTOGRAPH", hidden=True),
]
Sample = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="An installed photograph; see `list samples`."),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="See `list models`; or timm:, torchvision:, hf:, py: and a name."
    ),
]
Range = Annotated[
    str | None,
    typer.Option(
        "--range",
        metavar="LOW,HIGH",
        help="Pixel values of black and white, for images with more than 8 bits.",
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        "--methods",
        metavar="NAME",
        help="See `list methods`; several as uni,ig or by repeating the option. Settings can "
        "follow: ig:baseline=blur,sigma=10. all: every method that fits the model.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        "--metrics",
        metavar="NAME",
        help="See `list metrics`; several as for methods. Settings can follow: "
        "mu_fidelity:imputer=[black,blur].",
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="CLASS", help="Label or index to explain; by default the predicted class."
    ),
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--targets",
        metavar="CLASS",
        help="Label or index to explain; by default, or with predicted, the predicted class. "
        "Several as for methods.",
    ),
]
Score = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        callback=one_of("score"),
        help=f"Score to explain: {', '.join(choices('score'))}.",
    ),
]
Outputs = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        callback=one_of("outputs"),
        help=f"Kind of the model's outputs: {', '.join(choices('outputs'))}; detected by default.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A setting, for every method that has this setting."
    ),
]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, mps, ...")]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Output folder; by default unilens-out, where names that are taken get a number.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
Labels = Annotated[
    str | None, typer.Option(metavar="FILE", help="A CSV of the photographs' labels.")
]
Split = Annotated[str | None, typer.Option(metavar="NAME", help="Split of a named data set.")]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FOLDER", help="The run's folder; rows that it has are not computed again."
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Column of tables to leave out: what the model predicts."),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load an estimator from a file, which runs its code.")
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Random weights, without a download.")
]
Json = Annotated[bool, typer.Option("--json", help="Print only the records, one line each.")]

FOLDER = Path("unilens-out")
"""Where files go without --out."""


def read_shared(settings: list[str] | None, score: str | None) -> dict[str, Any]:
    """Return the settings of all methods from `--set` and `--score`."""
    return read_settings(settings or []) | ({} if score is None else {"score": score})


def read_names(given: list[str] | None, default: Sequence[str]) -> list[str]:
    """Return methods or metrics from a repeated option, each of which may list several."""
    return split_specs(given or []) or list(default)


def output_paths(
    out: Path | None, names: Sequence[str], overwrite: bool, suffixes: Sequence[str]
) -> list[Path]:
    """Return the path, without suffix, of each name's files.

    Without --out, names whose files exist get a number.

    Raises:
        UnilensError: the folder cannot be written; or a file in --out exists and is not to be
            overwritten.
    """
    from ..output.records import free_paths

    return free_paths(out or FOLDER, names, overwrite, suffixes, numbered=out is None)

"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..specs import read_settings, split_specs

Images = Annotated[
    list[str] | None,
    typer.Argument(help="Photographs: files, folders or patterns such as 'cats/*.jpg'."),
]
Sample = Annotated[
    list[str] | None, typer.Option(help="An installed photograph; see `list samples`.")
]
Model = Annotated[
    str, typer.Option(help="See `list models`; or timm:, torchvision:, hf:, py: and a name.")
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
        help="See `list methods`; several as uni,ig or by repeating the option. Settings can "
        "follow: ig:baseline=blur,sigma=10. all: every method that fits the model.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metric",
        "--metrics",
        help="See `list metrics`; several as for methods. Settings can follow: "
        "mu_fidelity:imputer=[black,blur].",
    ),
]
Target = Annotated[
    str | None, typer.Option(help="Label or index to explain; by default the predicted class.")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "--targets",
        help="Label or index to explain; by default, or with predicted, the predicted class. "
        "Several as for methods.",
    ),
]
Score = Annotated[
    str | None,
    typer.Option(help="Score to explain: probability, logit, log_probability, margin, sigmoid."),
]
Outputs = Annotated[
    str | None,
    typer.Option(
        help="Kind of the model's outputs: logits, log_probabilities, probabilities, multi_label, "
        "multi_label_probabilities, regression or decision_function; detected by default."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value, for every method that has this setting."),
]
Seed = Annotated[int, typer.Option(help="Random seed.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, ...")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="Output folder; by default unilens-out, where names that are taken get a number."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
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

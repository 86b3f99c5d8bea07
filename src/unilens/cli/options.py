"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..specs import read_settings

Images = Annotated[list[Path] | None, typer.Argument(help="Paths of photographs.")]
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
Target = Annotated[
    str | None, typer.Option(help="Label or index to explain; by default the predicted class.")
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
Out = Annotated[Path, typer.Option(help="Output folder.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Random weights, without a download.")
]
Json = Annotated[bool, typer.Option("--json", help="Print only the records, one line each.")]


def read_shared(settings: list[str] | None, score: str | None) -> dict[str, Any]:
    """Return the settings of all methods from `--set` and `--score`."""
    return read_settings(settings or []) | ({} if score is None else {"score": score})

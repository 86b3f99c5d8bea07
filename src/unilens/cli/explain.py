"""`unilens explain`: why a model sees a class in photographs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..attribution import Attribution
from ..diagnostics import WARNINGS
from ..errors import UnilensError, UnknownNameError, require
from ..explainer import Explainer
from ..methods import methods
from ..methods.path_diagnostics import curvature, stability
from ..models import DEFAULT_MODEL, load_model
from ..output import records
from ..output.viz import STYLES, printable
from ..path_attribution import PathAttribution
from ..specs import build_method, read_settings, read_specs
from . import options
from .app import app, complain
from .app import out as console
from .photographs import (
    class_index,
    progress_of,
    read_device,
    read_range,
    read_sources,
    show_preprocessing,
    waiting,
)


@app.command()
def explain(
    images: options.Images = None,
    sample: options.Sample = None,
    range_: options.Range = None,
    model: options.Model = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="See `list methods`; several are shown side by side. Settings can follow: "
            "ig:baseline=blur,sigma=10. all: every one that fits the model, as with --quick."
        ),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = Path("unilens-out"),
    style: Annotated[str, typer.Option(help="Of the maps: signed, unsigned or green.")] = "signed",
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the diagnostics that take more passes.")
    ] = False,
    overwrite: options.Overwrite = False,
    random_weights: options.RandomWeights = False,
    json_: options.Json = False,
) -> None:
    """Explain why a model sees a class in photographs.

    For each image a PNG panel, the raw maps (safetensors) and a JSON record are written to --out.
    """
    sources, values = read_sources(images or [], sample or []), read_range(range_)
    if style not in STYLES:
        raise UnknownNameError("style", style, STYLES)
    shared = read_settings(set_ or []) | ({} if score is None else {"score": score})
    everything = method == [_ALL]
    require(
        everything or _ALL not in (method or []),
        f"expected --method {_ALL} alone, got {', '.join(method or [])}",
    )
    specs = read_specs(methods, list(methods) if everything else method or ["uni"], shared)
    check_seed(seed)
    with waiting(f"loading {model}"):
        classifier = load_model(model, pretrained=not random_weights, device=read_device(device))
        explainers = {name: build_method(spec, classifier, values) for name, spec in specs.items()}
        index = None if target is None else class_index(classifier, target)
        evaluator = Evaluator(classifier, outputs=outputs)
    targets = records.free_paths(out, [source.name for source in sources], overwrite)
    failed = 0
    with progress_of(len(sources) * len(explainers)) as progress:
        task = progress.task_ids[0]
        for source, path in zip(sources, targets, strict=True):
            try:
                pixels = classifier.preprocess(source.load(values)).to(device)
            except UnilensError as error:
                failed += 1
                complain(error)
                progress.advance(task, len(explainers))
                continue
            left_out = _left_out(explainers, evaluator, pixels[None])
            if left_out and not everything:
                raise next(iter(left_out.values()))
            attributions: dict[str, Attribution] = {}
            for name, explainer in explainers.items():
                shown = escape(printable(f"{source.name}: {name}"))
                progress.update(task, description=shown)
                try:
                    if name not in left_out:
                        attribution = explainer(evaluator, pixels[None], index, seed=seed)
                        attributions[name] = _examine(
                            explainer, evaluator, pixels[None], attribution, quick or everything
                        ).with_provenance(method=specs[name].name, given=dict(specs[name].settings))
                except UnilensError as error:
                    if not everything:
                        raise
                    left_out[name] = error
                progress.advance(task)
            reasons = {name: str(error) for name, error in left_out.items()}
            recorded = records.record(source.shown, classifier, attributions, reasons)
            records.write(path, pixels, attributions, recorded, style)
            if json_:
                sys.stdout.write(json.dumps(recorded, allow_nan=False) + "\n")
                sys.stdout.flush()
            else:
                _summarise(recorded, path)
    if not json_:
        show_preprocessing(classifier)
    if failed:
        raise typer.Exit(1)


_ALL = "all"


def _left_out(
    explainers: Mapping[str, Explainer], evaluator: Evaluator, inputs: Tensor
) -> dict[str, UnilensError]:
    """Return why methods cannot explain this model at these inputs, by name."""
    reasons = {}
    for name, explainer in explainers.items():
        try:
            explainer.check(evaluator, inputs)
        except UnilensError as error:
            reasons[name] = error
    return reasons


def _examine(
    explainer: Explainer,
    evaluator: Evaluator,
    inputs: Tensor,
    attribution: Attribution,
    quick: bool,
) -> Attribution:
    """Add the diagnostics that take passes of their own."""
    if quick or not isinstance(explainer, PathAttribution):
        return attribution
    return attribution.with_measured(
        **stability(explainer, evaluator, inputs, attribution),
        **curvature(explainer, evaluator, inputs, attribution, iterations=5),
    )


def _summarise(recorded: Mapping[str, Any], path: Path) -> None:
    target, confidence = recorded["target"], recorded["confidence"]
    shown = "" if confidence is None else f", probability {confidence:.3f}"
    console.print(
        f"[bold]{escape(recorded['source'])}[/]: {escape(target['label'])} "
        f"(class {target['index']}){shown}"
    )
    for name, one in recorded["methods"].items():
        measured = one["diagnostics"]
        facts = [
            f"{label} {measured[key]:z.{digits}f}"
            for key, label, digits in (
                ("completeness_gap", "gap", 4),
                ("monotonicity", "monotonicity", 2),
                ("confidence_change", "confidence change at the baseline", 2),
            )
            if measured.get(key) is not None
        ]
        facts.append(f"{one['seconds']:.1f} s")
        console.print(f"  {escape(name)}: {', '.join(facts)}", soft_wrap=True)
        for warning in one["warnings"]:
            console.print(
                f"    [yellow]{warning}[/]: {escape(WARNINGS[warning].meaning)}", soft_wrap=True
            )
    for name, reason in recorded["left_out"].items():
        console.print(f"  left out: {escape(name)}: {escape(reason)}", soft_wrap=True)
    console.print(
        f"  written: {escape(printable(str(path)))}.png, .safetensors, .json", soft_wrap=True
    )

"""`unilens explain`: why a model sees a class in photographs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from ..attribution import Attribution
from ..errors import UnilensError, UnknownNameError, require
from ..methods import methods
from ..methods.path_diagnostics import curvature, stability
from ..models import DEFAULT_MODEL
from ..output import records
from ..output.viz import STYLES
from ..path_attribution import PathAttribution
from ..specs import Spec, read_specs
from . import options
from .app import app
from .output import (
    progress,
    show,
    show_error,
    show_json,
    show_prediction,
    show_warnings,
    show_written,
)
from .photographs import (
    Setup,
    Source,
    load_setup,
    read_range,
    read_sources,
    show_preprocessing,
)

_ALL = "all"
_FACTS = (
    ("completeness_gap", "gap", 4),
    ("monotonicity", "monotonicity", 2),
    ("confidence_change", "confidence change at the baseline", 2),
)
"""Diagnostics that are printed: name, label, decimals."""


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
    if style not in STYLES:
        raise UnknownNameError("style", style, STYLES)
    sources, value_range = read_sources(images, sample), read_range(range_)
    settings = options.read_shared(set_, score)
    every = method == [_ALL]
    require(
        every or _ALL not in (method or []),
        f"expected --method {_ALL} alone, got {', '.join(method or [])}",
    )
    specs = read_specs(methods, list(methods) if every else method or ["uni"], settings)
    setup = load_setup(
        model,
        specs,
        random_weights=random_weights,
        device=device,
        target=target,
        outputs=outputs,
        value_range=value_range,
        seed=seed,
    )
    run = _Run(setup, specs, seed, quick or every, keep_going=every)
    paths = records.free_paths(out, [source.name for source in sources], overwrite)
    failed = 0
    with progress(len(sources) * len(specs)) as bar:
        for source, path in zip(sources, paths, strict=True):
            try:
                pixels = setup.pixels(source)
            except UnilensError as error:
                failed += 1
                show_error(error)
                bar.advance(steps=len(specs))
                continue
            attributions, left_out = run.explain(source, pixels, bar.advance)
            record = records.record(source.label, setup.classifier, attributions, left_out)
            records.write(path, pixels[0], attributions, record, style)
            if json_:
                show_json(record)
            else:
                _show_record(record, path)
    if not json_:
        show_preprocessing(setup.classifier)
    if failed:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Run:
    """How every photograph is explained.

    Attributes:
        setup: model and methods.
        specs: what the command line says of each method.
        seed: of everything random.
        quick: whether to leave out the diagnostics that take passes of their own.
        keep_going: whether a method that fails is left out; otherwise its error is raised.
    """

    setup: Setup
    specs: Mapping[str, Spec]
    seed: int
    quick: bool
    keep_going: bool

    def explain(
        self, source: Source, pixels: Tensor, advance: Callable[..., None]
    ) -> tuple[dict[str, Attribution], dict[str, str]]:
        """Return the maps by method, and why other methods gave none."""
        left_out: dict[str, str] = {}
        for name, explainer in self.setup.explainers.items():
            try:
                explainer.check(self.setup.evaluator, pixels)
            except UnilensError as error:
                self._leave_out(name, error, left_out)
        attributions = {}
        for name in self.specs:
            advance(f"{source.name}: {name}", 0)
            try:
                if name not in left_out:
                    attributions[name] = self._attribution(name, pixels)
            except UnilensError as error:
                self._leave_out(name, error, left_out)
            advance()
        return attributions, left_out

    def _leave_out(self, name: str, error: UnilensError, left_out: dict[str, str]) -> None:
        if not self.keep_going:
            raise error
        left_out[name] = str(error)

    def _attribution(self, name: str, pixels: Tensor) -> Attribution:
        explainer, spec, evaluator = (
            self.setup.explainers[name],
            self.specs[name],
            self.setup.evaluator,
        )
        attribution = explainer(evaluator, pixels, self.setup.target, seed=self.seed)
        if not self.quick and isinstance(explainer, PathAttribution):
            attribution = attribution.with_measured(
                **stability(explainer, evaluator, pixels, attribution),
                **curvature(explainer, evaluator, pixels, attribution, iterations=5),
            )
        spec = self.specs[name]
        return attribution.with_provenance(method=spec.name, given=dict(spec.settings))


def _show_record(record: Mapping[str, Any], path: Path) -> None:
    show_prediction(record, f"{record['source']}: ")
    for name, result in record["methods"].items():
        diagnostics = result["diagnostics"]
        facts = [
            f"{label} {diagnostics[key]:z.{digits}f}"
            for key, label, digits in _FACTS
            if diagnostics.get(key) is not None
        ]
        facts.append(f"{result['seconds']:.1f} s")
        show(f"  {name}: {', '.join(facts)}")
        show_warnings(result["warnings"])
    for name, reason in record["left_out"].items():
        show(f"  left out: {name}: {reason}")
    show_written(path, records.SUFFIXES)

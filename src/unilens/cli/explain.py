"""`unilens explain`: why a model sees a class in photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from torch import Tensor

from ..attribution import Attribution
from ..errors import UnilensError, UnknownNameError, require
from ..methods import methods
from ..methods.defaults import SHOWN_BY_DEFAULT
from ..methods.path_diagnostics import curvature, stability
from ..models import DEFAULT_MODEL
from ..output import records
from ..output.viz import STYLES
from ..path_attribution import PathAttribution
from ..specs import Spec, read_specs
from . import animation, options, output
from .app import app
from .photographs import Setup, load_setup, read_range, read_sources, show_preprocessing

_ALL = "all"
_FACTS = (
    ("completeness_gap", "gap", 4),
    ("relevance_gap", "gap of the relevance", 4),
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
            help="See `list methods`; can be repeated. Settings can follow: "
            "ig:baseline=blur,sigma=10. all: every method that fits the model, with --quick."
        ),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = Path("unilens-out"),
    style: Annotated[
        str, typer.Option(help="Style of the maps: signed, unsigned or green.")
    ] = "signed",
    quick: Annotated[
        bool, typer.Option("--quick", help="Skip the diagnostics that take more passes.")
    ] = False,
    gif: Annotated[
        bool,
        typer.Option(
            "--gif",
            help="Write an animation too: the photograph dissolves into the baseline of the first "
            "method with a path, with the confidence under it.",
        ),
    ] = False,
    overwrite: options.Overwrite = False,
    random_weights: options.RandomWeights = False,
    json_: options.Json = False,
) -> None:
    """Explain why a model sees a class in photographs.

    Writes a figure (PNG), the raw maps (safetensors) and a JSON record of each image to --out.
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
    specs = read_specs(
        methods, list(methods) if every else method or list(SHOWN_BY_DEFAULT), settings
    )
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
    animated = animation.method_with_path(setup.explainers) if gif else ""
    suffixes = (*records.SUFFIXES, *[animation.SUFFIX] * gif)
    paths = records.free_paths(out, [source.name for source in sources], overwrite, suffixes)
    failed = 0
    with output.progress(len(sources) * len(specs)) as bar:
        for source, path in zip(sources, paths, strict=True):
            try:
                pixels = setup.pixels(source)
            except UnilensError as error:
                failed += 1
                output.show_error(error)
                bar.advance(steps=len(specs))
                continue
            attributions, left_out = _explain(
                setup, specs, pixels, quick=quick or every, keep_going=every, advance=bar.advance
            )
            record = records.record(source.label, setup.classifier, attributions, left_out)
            records.write(path, pixels[0], attributions, record, style)
            if animated in attributions:
                attribution = attributions[animated]
                animation.write_animation(path, setup, animated, pixels, attribution)
            if json_:
                output.show_json(record)
            else:
                _show_record(record, path, suffixes)
    if not json_:
        show_preprocessing(setup.classifier)
    if failed:
        raise typer.Exit(1)


def _explain(
    setup: Setup,
    specs: Mapping[str, Spec],
    pixels: Tensor,
    *,
    quick: bool,
    keep_going: bool,
    advance: Callable[..., None],
) -> tuple[dict[str, Attribution], dict[str, str]]:
    """Return the maps by method, and the errors of methods that are left out.

    Every method is checked before any runs. Errors are raised unless `keep_going`.
    """
    attributions: dict[str, Attribution] = {}
    errors: dict[str, str] = {}

    @contextmanager
    def errors_of(name: str) -> Iterator[None]:
        try:
            yield
        except UnilensError as error:
            if not keep_going:
                raise
            errors[name] = str(error)

    for name, explainer in setup.explainers.items():
        with errors_of(name):
            explainer.check(setup.evaluator, pixels)
    for name, spec in specs.items():
        advance(name, 0)
        if name not in errors:
            with errors_of(name):
                attribution = _attribution(setup, name, pixels, quick)
                attributions[name] = attribution.with_provenance(
                    method=spec.name,
                    given=dict(spec.settings),
                    family=methods[spec.name].card.family,
                    reference=methods[spec.name].card.reference,
                )
        advance()
    return attributions, errors


def _attribution(setup: Setup, name: str, pixels: Tensor, quick: bool) -> Attribution:
    """Return a method's map, unless quick with the diagnostics that take passes of their own."""
    evaluator, explainer = setup.evaluator, setup.explainers[name]
    attribution = explainer(evaluator, pixels, setup.target, seed=setup.seed)
    if quick or not isinstance(explainer, PathAttribution):
        return attribution
    return attribution.with_measured(
        **stability(explainer, evaluator, pixels, attribution),
        **curvature(explainer, evaluator, pixels, attribution, iterations=5),
    )


def _show_record(record: Mapping[str, Any], path: Path, suffixes: Sequence[str]) -> None:
    output.show_prediction(record, f"{record['source']}: ")
    for name, result in record["methods"].items():
        diagnostics = result["diagnostics"]
        facts = [
            f"{label} {diagnostics[key]:z.{digits}f}"
            for key, label, digits in _FACTS
            if diagnostics.get(key) is not None
        ]
        facts.append(f"{result['seconds']:.1f} s")
        card = methods[result["method"]].card
        output.show(f"  {name}: {card.summary} ({card.reference})", highlight=False)
        output.show(f"    {', '.join(facts)}")
        output.show_verdict(result["verdict"], result["warnings"])
    for name, reason in record["left_out"].items():
        output.show(f"  left out: {name}: {reason}")
    output.show_written(path, suffixes)

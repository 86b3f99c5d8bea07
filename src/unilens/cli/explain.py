"""`unilens explain`: why a model sees a class in photographs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._catalogue import DEFAULT_MODEL, SHOWN_BY_DEFAULT, check_model, choices, listing
from ..errors import UnilensError, require
from ..specs import Spec, read_specs
from . import options, output
from .app import app
from .photographs import Setup, load_setup, show_preprocessing
from .sources import read_range, read_sources

if TYPE_CHECKING:
    from torch import Tensor

    from ..attribution import Attribution

ALL = "all"
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
    method: options.Methods = None,
    target: options.Targets = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = None,
    style: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            callback=options.one_of("style"),
            help=f"Style of the maps: {', '.join(choices('style'))}.",
        ),
    ] = "signed",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Skip the diagnostics that take more passes; --method all does."
        ),
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

    PHOTOGRAPH is a file, a folder or a pattern such as 'cats/*.jpg'; several can be given.
    Writes a figure (PNG), the raw maps (safetensors) and a JSON record of each image to --out.
    """
    sources, value_range = read_sources(images, sample), read_range(range_)
    chosen, every = read_methods(method)
    specs = read_specs(listing("methods"), chosen, options.read_shared(set_, score))
    check_model(model)
    from ..output import records
    from . import animation
    from .background import InBackground

    setup = load_setup(
        model,
        specs,
        random_weights=random_weights,
        device=device,
        targets=target,
        outputs=outputs,
        value_range=value_range,
        seed=seed,
    )
    names = [setup.file_name(source, index) for source in sources for index in setup.targets]
    animated = animation.method_with_path(setup.explainers) if gif else ""
    suffixes = (*records.SUFFIXES, *[animation.SUFFIX] * gif)
    paths = iter(options.output_paths(out, names, overwrite, suffixes))
    failed = 0

    def finish(path: Path, pixels: Tensor, maps: Mapping[str, Attribution], record: Any) -> None:
        records.write(path, pixels[0], maps, record, style)
        if animated in maps:
            animation.write_animation(path, setup, animated, pixels, maps[animated])

    def show(path: Path, record: Mapping[str, Any]) -> None:
        if json_:
            output.show_json(record)
        else:
            _show_record(record, path, suffixes)

    with output.progress(len(names) * len(specs)) as bar, InBackground() as background:
        for source in sources:
            own_paths = [next(paths) for _ in setup.targets]
            try:
                pixels = setup.pixels(source)
            except UnilensError as error:
                background.wait()
                failed += 1
                output.show_error(error)
                bar.advance(steps=len(specs) * len(setup.targets))
                continue
            for index, path in zip(setup.targets, own_paths, strict=True):
                attributions, left_out = _explain(
                    setup, specs, pixels, index, quick or every, every, bar.advance
                )
                record = records.record(source.label, setup.classifier, attributions, left_out)
                background.start(
                    partial(finish, path, pixels, attributions, record), partial(show, path, record)
                )
    if not json_:
        show_preprocessing(setup.classifier)
    if failed:
        raise typer.Exit(1)


def read_methods(given: list[str] | None) -> tuple[list[str], bool]:
    """Return the methods that an option names, and whether they are all methods."""
    names = options.read_names(given, SHOWN_BY_DEFAULT)
    require(
        names == [ALL] or ALL not in names, f"expected --method {ALL} alone, got {', '.join(names)}"
    )
    return (list(listing("methods")), True) if names == [ALL] else (names, False)


def _explain(
    setup: Setup,
    specs: Mapping[str, Spec],
    pixels: Tensor,
    target: int | None,
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
                attribution = _attribution(setup, name, pixels, target, quick)
                attributions[name] = attribution.with_provenance(
                    method=spec.name,
                    given=dict(spec.settings),
                    family=listing("methods")[spec.name].card.family,
                    reference=listing("methods")[spec.name].card.reference,
                )
        advance()
    return attributions, errors


def _attribution(
    setup: Setup, name: str, pixels: Tensor, target: int | None, quick: bool
) -> Attribution:
    """Return a method's map, unless quick with the diagnostics that take passes of their own."""
    from ..methods.path_diagnostics import curvature, stability
    from ..path_attribution import PathAttribution

    evaluator, explainer = setup.evaluator, setup.explainers[name]
    attribution = explainer(evaluator, pixels, target, seed=setup.seed)
    if quick or not isinstance(explainer, PathAttribution):
        return attribution
    return attribution.with_measured(
        **stability(explainer, evaluator, pixels, attribution),
        **curvature(explainer, evaluator, pixels, attribution, iterations=5),
    )


def _show_record(record: Mapping[str, Any], path: Path, suffixes: Sequence[str]) -> None:
    """Print class and probability, verdicts and files, then what is known of each map."""
    output.show_prediction(record, f"{record['source']}: ")
    width = max(map(len, record["methods"]))
    for name, result in record["methods"].items():
        output.show_verdict(result["verdict"], result["warnings"], f"  {name:{width}}  ")
    output.show_written(path, suffixes)
    for name, result in record["methods"].items():
        diagnostics = result["diagnostics"]
        facts = [
            f"{label} {diagnostics[key]:z.{digits}f}"
            for key, label, digits in _FACTS
            if diagnostics.get(key) is not None
        ]
        facts.append(f"{result['seconds']:.1f} s")
        card = listing("methods")[result["method"]].card
        output.show(f"  {name}: {card.summary} ({card.reference})", highlight=False)
        output.show(f"    {', '.join(facts)}")
        output.show_warnings(result["warnings"])
    for name, reason in record["left_out"].items():
        output.show(f"  left out: {name}: {reason}")

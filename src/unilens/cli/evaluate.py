"""`unilens evaluate`: measure the maps of photographs by metrics."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from PIL import Image
from torch import Tensor

from ..attribution import Attribution
from ..errors import UnilensError, require
from ..methods import methods
from ..methods.defaults import SHOWN_BY_DEFAULT
from ..metrics import Measurement, Metric, MetricCache, MetricCard, metrics
from ..models import DEFAULT_MODEL, PixelClassifier
from ..models.images import decode_image
from ..output import records
from ..provenance import describe, versions
from ..specs import Spec, read_specs
from . import options, output
from .app import app
from .photographs import Setup, Source, load_setup, read_range, read_sources, show_preprocessing

SCHEMA = 1
_DEFAULT_METRICS = ("mu_fidelity", "insertion_auc", "deletion_auc")
_ARROWS = {True: " ↑", False: " ↓", None: ""}
_LONGEST_DETAIL = 101
"""Numbers per image that the record keeps of a detail, such as a curve."""


@app.command()
def evaluate(
    images: options.Images = None,
    sample: options.Sample = None,
    range_: options.Range = None,
    model: options.Model = DEFAULT_MODEL,
    method: Annotated[
        list[str] | None,
        typer.Option(help="See `list methods`. Settings can follow: ig:baseline=blur,sigma=10."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="See `list metrics`. Settings can follow: mu_fidelity:imputer=[black,blur]."
        ),
    ] = None,
    mask: Annotated[
        list[Path] | None,
        typer.Option(help="Image of the object's mask, white inside; one per photograph."),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = Path("unilens-out"),
    overwrite: options.Overwrite = False,
    random_weights: options.RandomWeights = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print only the record, as one line.")
    ] = False,
) -> None:
    """Measure methods by metrics on photographs.

    Prints a table, and writes every value to evaluation.json in --out.
    """
    sources, value_range = read_sources(images, sample), read_range(range_)
    masks: Sequence[Path | None] = mask or [None] * len(sources)
    require(
        len(masks) == len(sources),
        f"expected one --mask per photograph ({len(sources)}), got {len(masks)}",
    )
    specs = read_specs(methods, method or list(SHOWN_BY_DEFAULT), options.read_shared(set_, score))
    metric_specs = read_specs(metrics, metric or list(_DEFAULT_METRICS))
    built = {text: metrics[spec.name](**spec.settings) for text, spec in metric_specs.items()}
    for text, measure in built.items():
        require(
            bool(mask) or "mask" not in measure.needs,
            f"{text} needs to know where the object is; pass --mask FILE, white inside",
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
    (path,) = records.free_paths(out, ["evaluation"], overwrite, (".json",))
    rows: list[dict[str, Any]] = []
    unread = 0
    with output.progress(len(sources) * len(specs)) as bar:
        for source, mask_path in zip(sources, masks, strict=True):
            try:
                rows += _measure_source(setup, source, mask_path, built, bar.advance)
            except UnilensError as error:
                unread += 1
                output.show_error(error)
                bar.advance(steps=len(specs))
    record = _record(setup.classifier, specs, metric_specs, built, rows, seed)
    records.write_json(path, record)
    if json_:
        output.show_json(record)
    else:
        _show_record(record, path)
        show_preprocessing(setup.classifier)
    if unread or any(row["reason"] for row in rows):
        raise typer.Exit(1)


def _measure_source(
    setup: Setup,
    source: Source,
    mask_path: Path | None,
    built: Mapping[str, Metric],
    advance: Callable[..., None],
) -> list[dict[str, Any]]:
    """Return a row for each method and metric of one photograph.

    Raises:
        UnilensError: the photograph or its mask cannot be read.
    """
    pixels = setup.pixels(source)
    mask = None if mask_path is None else _read_mask(mask_path, setup.classifier)
    cache = MetricCache(setup.evaluator, pixels)
    rows = []
    for name, explainer in setup.explainers.items():
        advance(name, 0)
        attribution = _attribution(setup, name, pixels)
        for text, measure in built.items():
            row = {"source": source.label, "method": name, "metric": text}
            try:
                if isinstance(attribution, UnilensError):
                    raise attribution
                measurement = measure(
                    setup.evaluator,
                    pixels,
                    attribution,
                    method=explainer,
                    mask=mask,
                    seed=setup.seed,
                    cache=cache,
                )
                target = int(attribution.target[0])
                rows.append(row | {"target": target, "reason": None} | _as_data(measurement))
            except UnilensError as error:
                rows.append(row | {"target": None, "value": None, "reason": str(error)})
        advance()
    return rows


def _attribution(setup: Setup, name: str, pixels: Tensor) -> Attribution | UnilensError:
    """Return a method's map, or why there is none."""
    explainer = setup.explainers[name]
    try:
        explainer.check(setup.evaluator, pixels)
        return explainer(setup.evaluator, pixels, setup.target, seed=setup.seed)
    except UnilensError as error:
        return error


def _read_mask(path: Path, classifier: PixelClassifier) -> Tensor:
    """Return where an image is white, as the model's pixels `(1, H, W)`."""
    white = decode_image(path).convert("RGBA")  # for models of any number of channels
    black = Image.new("RGBA", white.size, "black")
    change = classifier.preprocess(white) - classifier.preprocess(black)  # 0 at added borders
    return change.amax(0, keepdim=True) > 0.5


def _as_data(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement of one input as plain data."""
    return {
        "value": records.number(measurement.values[0]),
        "breakdown": {
            name: records.number(values[0]) for name, values in measurement.breakdown.items()
        },
        "details": {
            name: records.numbers(values[0])
            for name, values in measurement.details.items()
            if isinstance(values, Tensor) and values[0].numel() <= _LONGEST_DETAIL
        },
        "seconds": measurement.provenance["seconds"],
    }


def _record(
    classifier: PixelClassifier,
    specs: Mapping[str, Spec],
    metric_specs: Mapping[str, Spec],
    built: Mapping[str, Metric],
    rows: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    cards = {text: cast(MetricCard, metrics[spec.name].card) for text, spec in metric_specs.items()}
    return {
        "schema": SCHEMA,
        "model": records.of_model(classifier),
        "seed": seed,
        "versions": versions(),
        "methods": {
            text: {"method": spec.name, "given": dict(spec.settings)}
            for text, spec in specs.items()
        },
        "metrics": {
            text: {
                "metric": card.name,
                "higher_is_better": card.higher_is_better,
                "bounds": list(card.bounds),
                "settings": describe(built[text]),
            }
            for text, card in cards.items()
        },
        "summary": {
            name: {text: _summary(rows, name, text) for text in metric_specs} for name in specs
        },
        "rows": list(rows),
    }


def _summary(rows: Sequence[Mapping[str, Any]], method: str, metric: str) -> dict[str, Any]:
    """Return mean and standard deviation of the defined values, and the number of the others."""
    rows = [row for row in rows if (row["method"], row["metric"]) == (method, metric)]
    defined = [row["value"] for row in rows if row["value"] is not None]
    failed = sum(row["reason"] is not None for row in rows)
    return {
        "mean": statistics.fmean(defined) if defined else None,
        "sd": statistics.stdev(defined) if len(defined) > 1 else None,
        "defined": len(defined),
        "undefined": len(rows) - len(defined) - failed,
        "failed": failed,
    }


def _show_record(record: Mapping[str, Any], path: Path) -> None:
    """Print a table of methods by metrics, the longer list as rows, and why values are missing."""
    summary, names = record["summary"], list(record["methods"])
    headings = {
        text: text + _ARROWS[metric["higher_is_better"]]
        for text, metric in record["metrics"].items()
    }
    if len(headings) <= len(names):
        first = ["method", *headings.values()]
        rows = [[name, *(_cell(summary[name][text]) for text in headings)] for name in names]
    else:
        first = ["metric", *names]
        rows = [
            [heading, *(_cell(summary[name][text]) for name in names)]
            for text, heading in headings.items()
        ]
    output.show_table(first, rows, right=range(1, len(first)))
    failed = ((row["method"], row["metric"], row["reason"]) for row in record["rows"])
    for method, metric, reason in dict.fromkeys(failed):
        if reason:
            output.show(f"  {method}, {metric}: {reason}")
    output.show_written(path, (".json",))


def _cell(summary: Mapping[str, Any]) -> str:
    if summary["mean"] is None:
        return "undefined" if summary["undefined"] else "-"
    spread = "" if summary["sd"] is None else f" ± {output.format_number(summary['sd'])}"
    missing = f" ({summary['undefined']} undefined)" if summary["undefined"] else ""
    return output.format_number(summary["mean"]) + spread + missing

"""`unilens evaluate`: measure the maps of photographs by metrics."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from .._catalogue import DEFAULT_MODEL, check_model, listing
from ..errors import UnilensError, require
from ..registry import MetricCard
from ..specs import Spec, read_specs
from . import options, output
from .app import app
from .explain import ALL, read_methods
from .photographs import Setup, load_setup, show_preprocessing
from .sources import Source, read_paths, read_range, read_sources

if TYPE_CHECKING:
    from torch import Tensor

    from ..attribution import Attribution
    from ..metrics import Measurement, Metric
    from ..models import PixelClassifier

SCHEMA = 2
OK, UNDEFINED, FAILED = "ok", "undefined", "failed"
"""The status of a row."""
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
    method: options.Methods = None,
    metric: options.Metrics = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE", help="Image of the object's mask, white inside; one per photograph."
        ),
    ] = None,
    target: options.Targets = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = None,
    overwrite: options.Overwrite = False,
    random_weights: options.RandomWeights = False,
    json_: Annotated[
        bool, typer.Option("--json", help="Print only the record, as one line.")
    ] = False,
) -> None:
    """Measure methods by metrics on photographs.

    PHOTOGRAPH is a file, a folder or a pattern such as 'cats/*.jpg'; several can be given.
    Prints a table, and writes every value to evaluation.json in --out.
    """
    sources, value_range = read_sources(images, sample), read_range(range_)
    given = [path for text in mask or [] for path in read_paths(text)]
    masks: Sequence[Path | None] = given or [None] * len(sources)
    require(
        len(masks) == len(sources),
        f"expected one --mask per photograph ({len(sources)}), got {len(masks)}",
    )
    specs = read_specs(
        listing("methods"), read_methods(method)[0], options.read_shared(set_, score)
    )
    metric_specs = read_specs(listing("metrics"), _read_metrics(metric, bool(mask)))
    for text, spec in metric_specs.items():
        require(
            bool(mask) or "mask" not in _card(spec).needs,
            f"{text} needs to know where the object is; pass --mask FILE, white inside",
        )
    check_model(model)
    from ..metrics import metrics
    from ..output import records

    built = {text: metrics[spec.name](**spec.settings) for text, spec in metric_specs.items()}
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
    (path,) = options.output_paths(out, ["evaluation"], overwrite, (".json",))
    rows: list[dict[str, Any]] = []
    unread = 0
    with output.progress(len(sources) * len(specs) * len(setup.targets)) as bar:
        for source, mask_path in zip(sources, masks, strict=True):
            try:
                rows += _measure_source(setup, source, mask_path, built, bar.advance)
            except UnilensError as error:
                unread += 1
                output.show_error(error)
                bar.advance(steps=len(specs) * len(setup.targets))
    record = _record(setup.classifier, specs, metric_specs, built, rows, seed)
    records.write_json(path, record)
    if json_:
        output.show_json(record)
    else:
        _show_record(record, path)
        show_preprocessing(setup.classifier)
    if unread or any(row["status"] == FAILED for row in rows):
        raise typer.Exit(1)


def _read_metrics(given: list[str] | None, has_mask: bool) -> list[str]:
    """Return the metrics that an option names; `all` are those that need no mask without one."""
    names = options.read_names(given, _DEFAULT_METRICS)
    if names != [ALL]:
        return names
    lacking = {"without_parts"} if has_mask else {"without_parts", "mask"}
    return [name for name in listing("metrics") if lacking.isdisjoint(_card(Spec(name, {})).needs)]


def _card(spec: Spec) -> MetricCard:
    return cast(MetricCard, listing("metrics")[spec.name].card)


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
    from ..metrics import MetricCache

    pixels = setup.pixels(source)
    mask = None if mask_path is None else _read_mask(mask_path, setup.classifier)
    cache = MetricCache(setup.evaluator, pixels)
    rows = []
    for index, name in itertools.product(setup.targets, setup.explainers):
        advance(name, 0)
        explainer, attribution = setup.explainers[name], _attribution(setup, name, pixels, index)
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
                rows.append(row | {"target": int(attribution.target[0])} | _as_data(measurement))
            except UnilensError as error:
                failed = {"target": None, "value": None, "status": FAILED, "reason": str(error)}
                rows.append(row | failed)
        advance()
    return rows


def _attribution(
    setup: Setup, name: str, pixels: Tensor, target: int | None
) -> Attribution | UnilensError:
    """Return a method's map, or why there is none."""
    explainer = setup.explainers[name]
    try:
        explainer.check(setup.evaluator, pixels)
        return explainer(setup.evaluator, pixels, target, seed=setup.seed)
    except UnilensError as error:
        return error


def _read_mask(path: Path, classifier: PixelClassifier) -> Tensor:
    """Return where an image is white, as the model's pixels `(1, H, W)`."""
    from PIL import Image

    from ..models.images import decode_image

    white = decode_image(path).convert("RGBA")  # for models of any number of channels
    black = Image.new("RGBA", white.size, "black")
    change = classifier.preprocess(white) - classifier.preprocess(black)  # 0 at added borders
    return change.amax(0, keepdim=True) > 0.5


def _as_data(measurement: Measurement) -> dict[str, Any]:
    """Return a measurement of one input as plain data."""
    from torch import Tensor

    from ..output import records

    reason = measurement.reasons[0] or None
    return {
        "value": records.number(measurement.values[0]),
        "status": UNDEFINED if reason else OK,
        "reason": reason,
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
    from ..output import records
    from ..provenance import describe, versions

    cards = {text: _card(spec) for text, spec in metric_specs.items()}
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
    failed = sum(row["status"] == FAILED for row in rows)
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
    output.show_written(path, (".json",))
    reasons = Counter(
        (row["method"], row["metric"], row["status"], row["reason"]) for row in record["rows"]
    )
    for (method, metric, status, reason), count in reasons.items():
        if reason:
            times = f" ({count} times)" if count > 1 else ""
            output.show(f"  {method}, {metric} {status}{times}: {reason}", highlight=False)


def _cell(summary: Mapping[str, Any]) -> str:
    if summary["mean"] is None:
        return "undefined" if summary["undefined"] else "-"
    spread = "" if summary["sd"] is None else f" ± {output.format_number(summary['sd'])}"
    missing = f" ({summary['undefined']} undefined)" if summary["undefined"] else ""
    return output.format_number(summary["mean"]) + spread + missing

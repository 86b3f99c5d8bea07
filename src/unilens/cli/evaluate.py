"""`unilens evaluate`: how good the maps of photographs are."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from PIL import Image
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..attribution import Attribution
from ..errors import UnilensError, require
from ..explainer import Explainer
from ..methods import methods
from ..metrics import Measurement, Metric, MetricCache, MetricCard, metrics
from ..models import DEFAULT_MODEL, PixelClassifier, load_model
from ..models.images import decode_image
from ..output import records
from ..output.viz import printable
from ..provenance import describe, versions
from ..specs import Spec, build_method, read_settings, read_specs
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

SCHEMA = 1
_DEFAULT_METRICS = ("mu_fidelity", "insertion_auc", "deletion_auc")
_ARROWS = {True: " ↑", False: " ↓", None: ""}
_SMALLEST_SHOWN = 0.0005
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
        typer.Option(help="An image that is white where the object is; one per photograph."),
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
        bool, typer.Option("--json", help="Print the record as one line, and nothing else.")
    ] = False,
) -> None:
    """Measure how good methods explain what a model sees in photographs.

    A table is printed, and every value is written to evaluation.json in --out.
    """
    sources, values = read_sources(images or [], sample or []), read_range(range_)
    masks = mask or []
    require(
        len(masks) in (0, len(sources)),
        f"expected one --mask per photograph ({len(sources)}), got {len(masks)}",
    )
    shared = read_settings(set_ or []) | ({} if score is None else {"score": score})
    specs = read_specs(methods, method or ["uni"], shared)
    wanted = read_specs(metrics, metric or list(_DEFAULT_METRICS))
    measures = {text: metrics[spec.name](**spec.settings) for text, spec in wanted.items()}
    for text, measure in measures.items():
        require(
            bool(masks) or "mask" not in measure.needs,
            f"{text} needs to know where the object is; pass --mask FILE, white inside",
        )
    check_seed(seed)
    with waiting(f"loading {model}"):
        classifier = load_model(model, pretrained=not random_weights, device=read_device(device))
        explainers = {text: build_method(spec, classifier, values) for text, spec in specs.items()}
        index = None if target is None else class_index(classifier, target)
        evaluator = Evaluator(classifier, outputs=outputs)
    (path,) = records.free_paths(out, ["evaluation"], overwrite, (".json",))
    rows: list[dict[str, Any]] = []
    unread = 0
    with progress_of(len(sources) * len(explainers) * (1 + len(measures))) as progress:
        task = progress.task_ids[0]
        for number, source in enumerate(sources):
            try:
                pixels = classifier.preprocess(source.load(values)).to(device)[None]
                inside = _read_mask(masks[number], classifier) if masks else None
                cache = MetricCache(evaluator, pixels)
            except UnilensError as error:
                unread += 1
                complain(error)
                progress.advance(task, len(explainers) * (1 + len(measures)))
                continue
            for name, explainer in explainers.items():
                shown = escape(printable(f"{source.name}: {name}"))
                progress.update(task, description=shown)
                of_map = _Map(evaluator, pixels, explainer, index, seed, inside, cache)
                for text, measure in measures.items():
                    row = {"source": source.shown, "method": name, "metric": text}
                    rows.append(row | of_map.measured(measure))
                    progress.advance(task)
                progress.advance(task)
    recorded = _record(classifier, specs, wanted, measures, rows, seed)
    records.write_json(path, recorded)
    if json_:
        sys.stdout.write(json.dumps(recorded, allow_nan=False) + "\n")
    else:
        _show(recorded, list(specs), list(measures), path)
        show_preprocessing(classifier)
    if unread or any(row["reason"] for row in rows):
        raise typer.Exit(1)


class _Map:
    """One method's map of one photograph, made when it is first asked for."""

    def __init__(
        self,
        evaluator: Evaluator,
        pixels: Tensor,
        explainer: Explainer,
        target: int | None,
        seed: int,
        mask: Tensor | None,
        cache: MetricCache,
    ) -> None:
        self._evaluator, self._pixels, self._explainer = evaluator, pixels, explainer
        self._target, self._seed, self._mask, self._memo = target, seed, mask, cache
        self._made: Attribution | UnilensError | None = None

    def measured(self, measure: Metric) -> dict[str, Any]:
        """Return the row of one metric, with the reason where there is no value."""
        try:
            attribution = self._attribution()
            found = measure(
                self._evaluator,
                self._pixels,
                attribution,
                method=self._explainer,
                mask=self._mask,
                seed=self._seed,
                cache=self._memo,
            )
        except UnilensError as error:
            return {"target": None, "value": None, "reason": str(error)}
        return {"target": int(attribution.target[0]), "reason": None, **_plain(found)}

    def _attribution(self) -> Attribution:
        if self._made is None:
            try:
                self._explainer.check(self._evaluator, self._pixels)
                self._made = self._explainer(
                    self._evaluator, self._pixels, self._target, seed=self._seed
                )
            except UnilensError as error:
                self._made = error
        if isinstance(self._made, UnilensError):
            raise self._made
        return self._made


def _read_mask(path: Path, classifier: PixelClassifier) -> Tensor:
    """Return where a picture is white, as the model's pixels `(1, H, W)`."""
    white = decode_image(path).convert("RGBA")  # for models of any number of channels
    black = Image.new("RGBA", white.size, "black")
    change = classifier.preprocess(white) - classifier.preprocess(black)  # 0 at added borders
    return change.amax(0, keepdim=True) > 0.5


def _plain(found: Measurement) -> dict[str, Any]:
    """Return a measurement of one input as plain data."""
    details = {
        name: [records.number(one) for one in values[0].flatten()]
        for name, values in found.details.items()
        if isinstance(values, Tensor) and values[0].numel() <= _LONGEST_DETAIL
    }
    return {
        "value": records.number(found.values[0]),
        "breakdown": {name: records.number(values[0]) for name, values in found.breakdown.items()},
        "details": details,
        "seconds": found.provenance["seconds"],
    }


def _record(
    classifier: PixelClassifier,
    specs: Mapping[str, Spec],
    wanted: Mapping[str, Spec],
    measures: Mapping[str, Metric],
    rows: Sequence[Mapping[str, Any]],
    seed: int,
) -> dict[str, Any]:
    cards = {text: cast(MetricCard, metrics[spec.name].card) for text, spec in wanted.items()}
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
                "settings": describe(measures[text]),
            }
            for text, card in cards.items()
        },
        "summary": {
            name: {text: _summary(_values(rows, name, text)) for text in wanted} for name in specs
        },
        "rows": list(rows),
    }


def _values(rows: Iterable[Mapping[str, Any]], method: str, metric: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if (row["method"], row["metric"]) == (method, metric)]


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation where defined, and how many are not."""
    defined = [row["value"] for row in rows if row["value"] is not None]
    failed = sum(row["reason"] is not None for row in rows)
    return {
        "mean": statistics.fmean(defined) if defined else None,
        "sd": statistics.stdev(defined) if len(defined) > 1 else None,
        "defined": len(defined),
        "undefined": len(rows) - len(defined) - failed,
        "failed": failed,
    }


def _show(
    recorded: Mapping[str, Any], names: Sequence[str], texts: Sequence[str], path: Path
) -> None:
    headings = {
        text: text + _ARROWS[recorded["metrics"][text]["higher_is_better"]] for text in texts
    }
    cells = {
        (name, text): _cell(recorded["summary"][name][text]) for name in names for text in texts
    }
    wide = len(texts) <= len(names)
    table = Table("method" if wide else "metric", box=None, pad_edge=False)
    for heading in headings.values() if wide else names:
        table.add_column(escape(heading), overflow="fold", justify="right")
    for row in names if wide else texts:
        shown = [cells[row, text] for text in texts] if wide else [cells[n, row] for n in names]
        table.add_row(escape(row if wide else headings[row]), *shown)
    console.print(table)
    reasons = {
        (row["method"], row["metric"], row["reason"]): None
        for row in recorded["rows"]
        if row["reason"]
    }
    for method, metric, reason in reasons:
        console.print(f"  {escape(f'{method}, {metric}: {reason}')}", soft_wrap=True)
    console.print(f"  written: {escape(printable(str(path)))}.json", soft_wrap=True)


def _cell(summary: Mapping[str, Any]) -> str:
    if summary["mean"] is None:
        shown = "undefined" if summary["undefined"] else "-"
    else:
        spread = "" if summary["sd"] is None else f" ± {_figure(summary['sd'])}"
        shown = f"{_figure(summary['mean'])}{spread}"
    missing = summary["undefined"] if summary["mean"] is not None else 0
    return shown + (f" ({missing} undefined)" if missing else "")


def _figure(value: float) -> str:
    """Return a number with three decimals; one that would vanish there, with its power of ten."""
    return f"{value:.1e}" if 0 < abs(value) < _SMALLEST_SHOWN else f"{value:.3f}"

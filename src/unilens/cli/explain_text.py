"""`unilens explain-text`: why a model sees a class in texts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..errors import UnilensError, require
from ..explainer import Method
from ..output import records
from ..outputs import OutputSpec
from ..specs import read_specs
from ..text import (
    TextAttribution,
    TextClassifier,
    build_text_method,
    load_text_classifier,
    text_methods,
)
from ..text.attribution import PARTS
from ..text.methods import DEFAULT_SPEC, explain_encoded
from ..text.render import page, rich_text, strongest
from . import options, output
from .app import app
from .photographs import read_device

SUFFIXES = (".html", ".json")


@app.command("explain-text")
def explain_text(
    texts: Annotated[list[str], typer.Argument(help="Texts, each in quotation marks.")],
    model: Annotated[
        str,
        typer.Option(help="hf:NAME or hf:FOLDER, a sequence classifier; or py:module:function."),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="See `list methods`; can be repeated. Settings can follow: ig:baseline=mask. "
            "Baselines are those of `list baselines`, and pad, mask and zero."
        ),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = Path("unilens-out"),
    by: Annotated[str, typer.Option(help="Unit that is coloured: word or token.")] = "word",
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
) -> None:
    """Explain why a model sees a class in texts.

    Writes an HTML page and a JSON record of each text to --out.
    """
    require(by in PARTS, f"expected --by {' or '.join(PARTS)}, got {by!r}")
    settings = options.read_shared(set_, score)
    specs = read_specs(text_methods, method or [DEFAULT_SPEC], settings)
    check_seed(seed)
    with output.waiting(f"loading {model}"):
        classifier = load_text_classifier(model, device=read_device(device))
        explainers = {
            name: build_text_method(classifier, spec.name, spec.settings)
            for name, spec in specs.items()
        }
        if target is not None:
            classifier.class_index(target)  # an unknown label is refused before any text is read
    paths = records.free_paths(out, [_file_name(text) for text in texts], overwrite, SUFFIXES)
    failed = 0
    for text, path in zip(texts, paths, strict=True):
        try:
            attributions = _explain(classifier, text, explainers, target, seed, outputs)
        except UnilensError as error:
            failed += 1
            output.show_error(error)
            continue
        record = _record(classifier, attributions)
        title = f"why “{record['target']['label']}”?"
        records.write_text(path, ".html", page(attributions, title, by))
        records.write_json(path, record)
        if json_:
            output.show_json(record)
        else:
            _show_record(attributions, record, path, by)
    if failed:
        raise typer.Exit(1)


def _file_name(text: str) -> str:
    """Return the first words of a text, as its files are named."""
    return "-".join(re.findall(r"\w+", text.casefold())[:6])[:60] or "text"


def _explain(
    classifier: TextClassifier,
    text: str,
    explainers: Mapping[str, Method],
    target: str | None,
    seed: int,
    outputs: str | None,
) -> dict[str, TextAttribution]:
    encoded = classifier.encode(text)
    evaluator = Evaluator(encoded.model, outputs=outputs, channels="first")
    attributions = {}
    for name, explainer in explainers.items():
        with output.waiting(f"{name}: {text[:40]}"):
            attributions[name] = explain_encoded(
                classifier, encoded, evaluator, explainer, target, method=name, seed=seed
            )
    return attributions


def _record(
    classifier: TextClassifier, attributions: Mapping[str, TextAttribution]
) -> dict[str, Any]:
    """Return everything about one text's explanations as plain data."""
    first = next(iter(attributions.values()))
    probabilities = OutputSpec.of(first.attribution.provenance).probabilities(
        first.attribution.outputs[0]
    )
    return {
        "schema": records.SCHEMA,
        "text": first.tokens.text,
        "model": {"name": classifier.name},
        "target": {"index": int(first.attribution.target), "label": first.label},
        "confidence": records.number(first.attribution.confidence[0]),
        "predictions": records.predictions(classifier, probabilities),
        "tokens": list(first.tokens.names),
        "offsets": [list(pair) for pair in first.tokens.offsets],
        "words": list(first.tokens.words),
        "notes": list(first.notes),
        "methods": {
            name: records.of_method(attribution.attribution)
            | {
                "token_values": records.numbers(attribution.token_values),
                "word_values": records.numbers(attribution.word_values),
            }
            for name, attribution in attributions.items()
        },
    }


def _show_record(
    attributions: Mapping[str, TextAttribution], record: Mapping[str, Any], path: Path, by: str
) -> None:
    output.show_prediction(record)
    for name, attribution in attributions.items():
        gap = attribution.completeness_gap
        output.show(f"  {name}" + ("" if gap != gap else f", gap {gap:+z.4f}") + ":")
        output.show_renderable(rich_text(attribution, by))
        words = ", ".join(f"{word} {value:+.3f}" for word, value in strongest(attribution))
        output.show(f"    strongest: {words}", highlight=False)
        output.show_verdict(
            attribution.attribution.verdicts[0], attribution.attribution.warnings[0]
        )
    for note in next(iter(attributions.values())).notes:
        output.show(f"  note: {note}")
    output.show_written(path, SUFFIXES)

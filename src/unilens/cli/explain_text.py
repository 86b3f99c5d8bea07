"""`unilens explain-text`: why a model sees a class in texts."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..diagnostics import WARNINGS
from ..errors import UnilensError, require
from ..explainer import Explainer
from ..output import records
from ..output.viz import printable
from ..outputs import OutputSpec
from ..specs import read_settings, read_specs
from ..text import (
    TextAttribution,
    TextClassifier,
    build_text_method,
    load_text_classifier,
    text_methods,
)
from ..text.attribution import PARTS
from ..text.render import page, plain, rich_text, strongest
from . import options
from .app import app, complain
from .app import out as console
from .photographs import read_device, waiting

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
            help="See `list methods`; several are shown below each other. Settings can follow: "
            "ig:baseline=mask. Baselines are those of `list baselines`, and pad, mask and zero."
        ),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = Path("unilens-out"),
    by: Annotated[str, typer.Option(help="What is coloured as one: word or token.")] = "word",
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
) -> None:
    """Explain why a model sees a class in texts.

    For each text an HTML page and a JSON record are written to --out.
    """
    require(by in PARTS, f"expected --by {' or '.join(PARTS)}, got {by!r}")
    shared = read_settings(set_ or []) | ({} if score is None else {"score": score})
    specs = read_specs(text_methods, method or ["uni"], shared)
    check_seed(seed)
    with waiting(f"loading {model}"):
        classifier = load_text_classifier(model, device=read_device(device))
        explainers = {
            name: build_text_method(classifier, spec.name, spec.settings)
            for name, spec in specs.items()
        }
        if target is not None:
            classifier.class_index(target)  # no such label: said before a text is read
    paths = records.free_paths(out, [_name(text) for text in texts], overwrite, SUFFIXES)
    failed = 0
    for text, path in zip(texts, paths, strict=True):
        try:
            found = _explained(classifier, text, explainers, target, seed, outputs)
        except UnilensError as error:
            failed += 1
            complain(error)
            continue
        recorded = _record(classifier, found)
        records.write_text(path, ".html", page(found, f"why “{recorded['target']['label']}”?", by))
        records.write_json(path, recorded)
        if json_:
            sys.stdout.write(json.dumps(recorded, allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            _summarise(found, recorded, path, by)
    if failed:
        raise typer.Exit(1)


def _name(text: str) -> str:
    """Return what a text's files are called: its first words."""
    return "-".join(re.findall(r"\w+", text.casefold())[:6])[:60] or "text"


def _explained(
    classifier: TextClassifier,
    text: str,
    explainers: Mapping[str, Explainer],
    target: str | None,
    seed: int,
    outputs: str | None,
) -> dict[str, TextAttribution]:
    encoded = classifier.encode(text)
    evaluator = Evaluator(encoded.model, outputs=outputs, channels="first")
    found = {}
    for name, explainer in explainers.items():
        with waiting(f"{name}: {plain(text[:40])}"):
            attribution = explainer(evaluator, encoded.embeddings, target, seed=seed)
        label = classifier.label(int(attribution.target))
        found[name] = TextAttribution(
            encoded.tokens, label, attribution.with_provenance(method=name), encoded.notes
        )
    return found


def _record(classifier: TextClassifier, found: Mapping[str, TextAttribution]) -> dict[str, Any]:
    """Return everything about one text's explanations as plain data."""
    first = next(iter(found.values()))
    spec = OutputSpec.of(first.attribution.provenance)
    probabilities = spec.probabilities(first.attribution.outputs[0])
    return {
        "schema": records.SCHEMA,
        "text": first.tokens.text,
        "model": {"name": classifier.name},
        "target": {"index": int(first.attribution.target), "label": first.label},
        "confidence": records.number(first.attribution.confidence[0]),
        "predictions": [
            {"index": index, "label": classifier.label(index), "probability": records.number(one)}
            for index, one in enumerate(probabilities)
        ],
        "tokens": list(first.tokens.names),
        "offsets": [list(pair) for pair in first.tokens.offsets],
        "words": list(first.tokens.words),
        "notes": list(first.notes),
        "methods": {
            name: records.of_method(one.attribution)
            | {
                "token_values": [records.number(value) for value in one.token_values],
                "word_values": [records.number(value) for value in one.word_values],
            }
            for name, one in found.items()
        },
    }


def _summarise(
    found: Mapping[str, TextAttribution], recorded: Mapping[str, Any], path: Path, by: str
) -> None:
    target, confidence = recorded["target"], recorded["confidence"]
    shown = "" if confidence is None else f", probability {confidence:.3f}"
    console.print(f"[bold]{escape(plain(target['label']))}[/] (class {target['index']}){shown}")
    for name, one in found.items():
        gap = one.completeness_gap
        fact = "" if gap != gap else f", gap {gap:+z.4f}"
        console.print(f"  {escape(plain(name))}{fact}:", soft_wrap=True)
        console.print(rich_text(one, by), soft_wrap=True)
        words = ", ".join(f"{plain(word)} {value:+.3f}" for word, value in strongest(one))
        console.print(f"    strongest: {escape(words)}", soft_wrap=True, highlight=False)
        for warning in one.attribution.warnings[0]:
            console.print(
                f"    [yellow]{warning}[/]: {escape(WARNINGS[warning].meaning)}", soft_wrap=True
            )
    for note in next(iter(found.values())).notes:
        console.print(f"  note: {escape(plain(note))}", soft_wrap=True)
    console.print(f"  written: {escape(printable(str(path)))}.html, .json", soft_wrap=True)

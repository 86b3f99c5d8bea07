"""`unilens explain-text`: why a model sees a class in texts, or goes on as it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._catalogue import check_choice, listing
from ..errors import UnilensError, require
from ..specs import Spec, read_specs
from . import options, output
from .app import app
from .explain_generation import GenerationExplainer, GenerationOptions, refuse_language_model
from .photographs import read_device
from .text_reports import SUFFIXES, TextReport, show_strongest, write_reports

if TYPE_CHECKING:
    from ..explainer import Method
    from ..text import TextAttribution, TextClassifier


@app.command("explain-text")
def explain_text(
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", hidden=True)],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="hf:NAME or hf:FOLDER, a sequence classifier, or with --generate a language "
            "model; or py:module:function.",
        ),
    ],
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            "--methods",
            metavar="NAME",
            help="See `list methods`; several as uni,ig or by repeating the option. Settings can "
            "follow: ig:baseline=mask. Baselines are those of `list baselines`, and pad, mask and "
            "zero.",
        ),
    ] = None,
    generate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Explain the tokens, N at most, that a language model writes after each text.",
        ),
    ] = None,
    continuation: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="Explain this text after each text, in place of --generate."
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="WORD", help="Why each generated token, and not this one? With --generate."
        ),
    ] = None,
    target: options.Target = None,
    score: options.Score = None,
    outputs: options.Outputs = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: options.Out = None,
    by: Annotated[
        str,
        typer.Option(metavar="UNIT", help="Unit: word or token; of generated texts also sentence."),
    ] = "word",
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
) -> None:
    """Explain why a model sees a class in texts, or writes on.

    With --generate or --continuation, explains why a language model goes on as it does. A TEXT is
    in quotation marks; several can be given. Writes an HTML page and a JSON record of each text
    to --out.
    """
    settings = options.read_shared(set_, score)
    names = options.read_names(method, ())
    generated = generate is not None or continuation is not None
    # refused before anything is loaded
    read_specs(listing("text_methods"), names)
    check_choice("unit of a generated text" if generated else "unit", by)
    from ..text import text_methods
    from ..text.generation.generate import DEFAULT_METHODS
    from ..text.methods import DEFAULT_SPEC

    if not generated:
        require(
            against is None,
            f"expected --generate N beside --against {against!r}, which contrasts what a language "
            "model writes; add it, or --continuation TEXT",
        )
        specs = read_specs(text_methods, names or [DEFAULT_SPEC], settings)
        explain: Callable[[str], TextReport] = _Classifier(
            model, device, specs, target, outputs, by, seed
        )
    else:
        require(
            target is None and outputs is None,
            "expected --target and --outputs for classifiers only, got one beside --generate or "
            "--continuation; leave it out",
        )
        specs = read_specs(text_methods, names or [DEFAULT_METHODS[0]], settings)
        chosen = GenerationOptions(generate, continuation, against, by, seed, not names)
        explain = GenerationExplainer(model, device, specs, chosen)
    write_reports(texts, explain, out, overwrite, json_)


class _Classifier:
    """Explains texts by a classifier and several methods."""

    def __init__(
        self,
        model: str,
        device: str,
        specs: Mapping[str, Spec],
        target: str | None,
        outputs: str | None,
        by: str,
        seed: int,
    ) -> None:
        from .._validation.inputs import check_seed
        from ..text import build_text_method, load_text_classifier

        check_seed(seed)
        with output.waiting(f"loading {model}"):
            try:
                self.classifier = load_text_classifier(model, device=read_device(device))
            except UnilensError as error:
                refuse_language_model(model, error)
                raise
            self.explainers = {
                name: build_text_method(self.classifier, spec.name, spec.settings)
                for name, spec in specs.items()
            }
            if target is not None:
                self.classifier.class_index(target)  # refused before any text is read
        self.target, self.outputs, self.by, self.seed = target, outputs, by, seed

    def __call__(self, text: str) -> TextReport:
        """Return the report of one text."""
        from ..text.render import page

        attributions = _explain(
            self.classifier, text, self.explainers, self.target, self.seed, self.outputs
        )
        record = _record(self.classifier, attributions)
        title = f"why “{record['target']['label']}”?"
        return TextReport(
            record,
            page(attributions, title, self.by),
            lambda path: _show_record(attributions, record, self.by, path),
        )


def _explain(
    classifier: TextClassifier,
    text: str,
    explainers: Mapping[str, Method],
    target: str | None,
    seed: int,
    outputs: str | None,
) -> dict[str, TextAttribution]:
    from .._engine.evaluator import Evaluator
    from ..text.methods import explain_encoded

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
    from ..output import records
    from ..outputs import OutputSpec

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
        "notes": _notes(attributions),
        "methods": {
            name: records.of_method(attribution.attribution)
            | {
                "token_values": records.numbers(attribution.token_values),
                "word_values": records.numbers(attribution.word_values),
            }
            for name, attribution in attributions.items()
        },
    }


def _notes(attributions: Mapping[str, TextAttribution]) -> list[str]:
    """Return the notes on the text and on each method, each once."""
    notes = (note for attribution in attributions.values() for note in attribution.notes)
    return list(dict.fromkeys(notes))


def _show_record(
    attributions: Mapping[str, TextAttribution], record: Mapping[str, Any], by: str, path: Path
) -> None:
    """Print class and probability, verdicts and files, then the words by each method."""
    from ..text.render import rich_text

    output.show_prediction(record)
    for name, attribution in attributions.items():
        warnings = attribution.attribution.warnings[0]
        output.show_verdict(attribution.attribution.verdicts[0], warnings, f"  {name}: ")
    output.show_written(path, SUFFIXES)
    for name, attribution in attributions.items():
        gap = attribution.completeness_gap
        output.show(f"  {name}" + ("" if gap != gap else f", gap {gap:+z.4f}") + ":")
        output.show_renderable(rich_text(attribution, by))
        show_strongest(attribution)
        output.show_warnings(attribution.attribution.warnings[0])
    for note in record["notes"]:
        output.show(f"  note: {note}")

"""`unilens explain-match`: why an image and a text match."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .._catalogue import listing
from ..errors import require
from ..output.text import printable
from ..specs import Spec, read_specs
from . import options, output
from .app import app
from .photographs import read_device
from .sources import read_range
from .text_reports import SUFFIXES, show_strongest

if TYPE_CHECKING:
    from ..text import MatchAttribution, TextAttribution


@app.command("explain-match")
def explain_match(
    image: Annotated[Path, typer.Argument(metavar="PHOTOGRAPH", hidden=True)],
    text: Annotated[str, typer.Argument(metavar="TEXT", hidden=True)],
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="hf:NAME or hf:FOLDER, a model such as CLIP with its processor."
        ),
    ],
    against: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Another text: why the first rather than this one."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="See `list methods`, for both sides; settings can follow."
        ),
    ] = None,
    text_method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The method of the text: ig:baseline=pad, for example."),
    ] = None,
    set_: options.Settings = None,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    range_: options.Range = None,
    out: options.Out = None,
    by: Annotated[
        str,
        typer.Option(
            metavar="UNIT",
            callback=options.one_of("unit"),
            help="Unit that is coloured: word or token.",
        ),
    ] = "word",
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
) -> None:
    """Explain why an image and a text match.

    With --against, explains why this text rather than another. PHOTOGRAPH is a file; TEXT is in
    quotation marks. Writes an HTML page and a JSON record to --out.
    """
    require(image.exists(), f"no such image: {printable(str(image))}")
    spec, text_spec = _read("methods", method), _read("text_methods", text_method)
    from ..output import records
    from ..text import explain_match as explain
    from ..text import load_image_text_model, match_html
    from ..text.render import document

    value_range = read_range(range_)
    settings = {**options.read_shared(set_, None), **spec.settings}
    with output.waiting(f"loading {model}"):
        loaded = load_image_text_model(model, device=read_device(device))
    (path,) = options.output_paths(out, [image.stem], overwrite, SUFFIXES)
    with output.waiting(f"explaining {image}"):
        match = explain(
            loaded,
            image,
            text,
            spec.name or None,
            against=against,
            text_method=text_spec.name or None,
            text_settings=text_spec.settings,
            value_range=value_range,
            seed=seed,
            **settings,
        )
    record = _record(str(image), match) | {"model": records.of_model(loaded.images)}
    title = f"why does {image.name} match “{text}”?"
    records.write_text(path, ".html", document([match_html(match, by)], title))
    records.write_json(path, record)
    if json_:
        output.show_json(record)
    else:
        _show(match, path, by)


def _read(kind: str, text: str | None) -> Spec:
    """Return a method with its settings; without a name where none is given."""
    return Spec("", {}) if text is None else read_specs(listing(kind), [text])[text]


def _record(source: str, match: MatchAttribution) -> dict[str, Any]:
    """Return everything about a match as plain data."""
    from ..output import records

    return {
        "schema": records.SCHEMA,
        "source": source,
        "score": match.score,
        "similarities": list(match.similarities),
        "notes": list(match.notes),
        "image": records.of_method(match.image),
        "texts": [_of_text(text) for text in match.texts],
    }


def _of_text(text: TextAttribution) -> Mapping[str, Any]:
    from ..output import records

    return {
        "text": text.tokens.text,
        "tokens": list(text.tokens.names),
        "offsets": [list(pair) for pair in text.tokens.offsets],
        "words": list(text.tokens.words),
        "notes": list(text.notes),
        "token_values": records.numbers(text.token_values),
        "word_values": records.numbers(text.word_values),
        **records.of_method(text.attribution),
    }


def _show(match: MatchAttribution, path: Path, by: str) -> None:
    """Print the score, verdicts and files, then the words and what is known of each map."""
    from ..text.render import rich_text

    similar = ", ".join(f"{similarity:+.3f}" for similarity in match.similarities)
    output.show(f"similarity {similar}; score {match.score:+.3f}", highlight=False)
    sides = ("image", "text", "other text")
    maps = (match.image, *(text.attribution for text in match.texts))
    for side, attribution in zip(sides, maps, strict=False):
        title = f"  {side}, by {attribution.provenance['method']}: "
        output.show_verdict(attribution.verdicts[0], attribution.warnings[0], title)
    output.show_written(path, SUFFIXES)
    output.show_warnings(match.image.warnings[0])
    for text in match.texts:
        output.show_renderable(rich_text(text, by))
        show_strongest(text)
        output.show_warnings(text.attribution.warnings[0])
    for note in (*match.notes, *(note for text in match.texts for note in text.notes)):
        output.show(f"  note: {note}", highlight=False)

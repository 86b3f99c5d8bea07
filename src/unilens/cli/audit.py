"""`unilens audit`: a page about a model on photographs, for a colleague who does not code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from .._catalogue import DEFAULT_MODEL, check_model
from ..errors import require
from . import options
from .app import app, needs_extra
from .output import progress, show, show_renderable, show_written, waiting
from .photographs import read_device


@app.command()
def audit(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", hidden=True)],
    model: options.Model = DEFAULT_MODEL,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="A CSV of the right answers; by default labels.csv in the folder."
        ),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A CSV of objects: file, left, top, right, bottom in pixels."
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", help="Most photographs; of more, a random sample is taken.")
    ] = 100,
    seed: options.Seed = 0,
    device: options.Device = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Output folder; by default unilens-out/audit-FOLDER."),
    ] = None,
    random_weights: options.RandomWeights = False,
) -> None:
    """Write a page on what a model looks at, and its shortcuts.

    The page is for a colleague who does not code, as HTML and PDF. FOLDER has the photographs;
    those of the folders below it count too. An audit of 50 photographs takes minutes. The same
    command continues an interrupted audit.
    """
    check_model(model)
    with needs_extra("audit", "benchmark"):
        from ..benchmark.audit import Photographs
        from ..benchmark.audit import audit as measure
        from ..benchmark.audit.boxes import read_boxes
        from ..benchmark.audit.page import STYLES
        from ..benchmark.audit.report import SUFFIXES, write_report
        from ..benchmark.data import open_source
    from ..models import load_model

    require(limit >= 1, f"expected --limit of at least 1, got {limit}")
    items = open_source(folder, labels=labels, limit=limit)
    objects = {} if boxes is None else read_boxes(boxes, {item.key for item in items})
    with waiting(f"loading {model}"):
        classifier = load_model(model, pretrained=not random_weights, device=read_device(device))
    name = Path(folder).resolve().name
    target = out or options.FOLDER / f"audit-{name}"
    with progress(len(items)) as bar:
        photographs = Photographs.read(classifier, items, objects, bar.set)
        found = measure(
            photographs, target, seed=seed, random_weights=random_weights, on_progress=bar.set
        )
    page, path = write_report(found, target, name)
    show(page.accuracy, title=f"{page.about} ")
    for sentence in page.short:
        symbol, _, colour = STYLES[sentence.level]
        show_renderable(Text.assemble((f"{symbol} {sentence.title}. ", colour), sentence.text))
    for note in page.notes:
        show(f"  {note}")
    show_written(path, SUFFIXES)

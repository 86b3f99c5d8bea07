"""Pages and records of explained texts: what both kinds of models of texts write."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..errors import UnilensError
from . import options, output

if TYPE_CHECKING:
    from ..text import TextAttribution

SUFFIXES = (".html", ".json")


@dataclass(frozen=True, slots=True)
class TextReport:
    """The explanations of one text.

    Attributes:
        record: as plain data.
        page: HTML.
        show: prints them, with the path of their files.
    """

    record: Mapping[str, Any]
    page: str
    show: Callable[[Path], None]


def write_reports(
    texts: Sequence[str],
    explain: Callable[[str], TextReport],
    out: Path | None,
    overwrite: bool,
    json_: bool,
) -> None:
    """Explain texts, write the page and the record of each, and print them.

    Args:
        texts: to explain.
        explain: of one text; an error of one leaves the others.
        out: folder; None for the default one, where names that are taken get a number.
        overwrite: whether files are replaced.
        json_: whether the records alone are printed.

    Raises:
        UnilensError: a file exists or cannot be written.
        typer.Exit: a text could not be explained.
    """
    from ..output import records

    paths = options.output_paths(out, [_file_name(text) for text in texts], overwrite, SUFFIXES)
    failed = 0
    for text, path in zip(texts, paths, strict=True):
        try:
            report = explain(text)
        except UnilensError as error:
            failed += 1
            output.show_error(error)
            continue
        records.write_text(path, ".html", report.page)
        records.write_json(path, report.record)
        if json_:
            output.show_json(report.record)
        else:
            report.show(path)
    if failed:
        raise typer.Exit(1)


def show_strongest(attribution: TextAttribution) -> None:
    """Print the words that contributed most; those without letters or digits in quotation marks."""
    from ..text.render import strongest

    words = ", ".join(
        f"{word if any(map(str.isalnum, word)) else f'“{word}”'} {value:+.2g}"
        for word, value in strongest(attribution)
    )
    output.show(f"    strongest: {words}", highlight=False)


def _file_name(text: str) -> str:
    """Return the first words of a text, as its files are named."""
    return "-".join(re.findall(r"\w+", text.casefold())[:6])[:60] or "text"

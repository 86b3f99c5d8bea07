"""The files of an audit: a page, a sheet to print, and all numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._ops.files import write_whole
from ...output.records import free_paths, of_model, write_json, write_text
from ...provenance import versions
from .findings import findings_of
from .page import Page, as_html
from .pdf import write_pdf
from .run import Audit

SUFFIXES = (".html", ".pdf", ".json")


def write_report(audit: Audit, folder: Path, name: str) -> tuple[Page, Path]:
    """Write `audit.html`, `audit.pdf` and `audit.json`, numbered where these are taken.

    Args:
        audit: what was measured.
        folder: to write to.
        name: of the photographs, for the heading.

    Returns:
        The page, and the path of its files without their suffixes.
    """
    page = Page.of(audit, name)
    (path,) = free_paths(folder, ["audit"], False, SUFFIXES, numbered=True)
    write_text(path, ".html", as_html(page))
    write_whole(path, ".pdf", lambda file: write_pdf(page, Path(file)))
    write_json(path, _record(audit, page))
    return page, path


def _record(audit: Audit, page: Page) -> dict[str, Any]:
    """Return all that was measured and found as plain data."""
    items = audit.photographs.items
    return {
        "model": of_model(audit.photographs.classifier),
        "random_weights": audit.random_weights,
        "versions": versions(),
        "findings": [sentence._asdict() for sentence in page.short],
        "numbers": _plain(dataclasses.asdict(findings_of(audit))),
        "marks": [
            {
                "name": mark.name,
                "place": mark.place,
                "photographs": [items[index].key for index in mark.boxes],
            }
            for mark in audit.photographs.marks
        ],
        "photographs": {
            items[index].key: _plain(facts)
            for index, facts in zip(audit.indices, audit.facts, strict=True)
        },
        "broken": dict(audit.photographs.broken),
        "left_out": dict(audit.left_out),
    }


def _plain(value: Any) -> Any:
    """Return a value as JSON: null for what is not finite."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

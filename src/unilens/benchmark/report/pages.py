"""Pages from templates, and files written whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from ...errors import UnilensError
from ...output.html import environment
from ...output.records import write_text
from .tables import number


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a page; all values of the context are escaped."""
    pages = environment(
        loader=jinja2.PackageLoader("unilens.benchmark.report", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["number"] = number
    return pages.get_template(template).render(context)


def write_all(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """Write files, each whole or not at all, to a folder that is created if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnilensError(
            f"expected a folder for the report that can be written, got {folder}: "
            f"{error.strerror}; choose another with --out"
        ) from error
    for name, text in texts.items():
        path = folder / name
        write_text(path.with_suffix(""), path.suffix, text)
    return [folder / name for name in texts]


def condition(corruption: str, severity: int) -> str:
    """Return the corruption of the images in words."""
    return f"{corruption}, severity {severity}" if corruption else "images as they are"

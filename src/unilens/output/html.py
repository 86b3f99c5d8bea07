"""HTML from templates: whatever a text holds, it is shown and does nothing."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from .text import visible


def environment(**options: Any) -> Environment:
    """Return an environment that escapes every value and replaces hidden characters.

    Args:
        options: of `jinja2.Environment`.
    """
    return Environment(autoescape=True, finalize=_shown, **options)


def _shown(value: object) -> object:
    if isinstance(value, Markup):
        return Markup(visible(value))  # noqa: S704 (markup before, and without new characters)
    return visible(value) if isinstance(value, str) else value

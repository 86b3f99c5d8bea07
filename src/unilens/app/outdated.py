"""The notice that a result belongs to earlier choices; page.css veils what is beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import gradio as gr
from pydantic import BaseModel

from ..errors import UnilensError
from .render import html_of

_AGAIN = """
element.addEventListener("click", event => {
  if (event.target.closest("button")) trigger("select");
});
"""


def outdated_notice(elem_id: str) -> Any:
    """Return a component for the notice; its button triggers `select`."""
    return gr.HTML(elem_id=elem_id, elem_classes="ul-notice", min_height=0, js_on_load=_AGAIN)


def notice(
    shown: tuple[str, dict[str, Any]] | None, path: str | None, read: Callable[[], BaseModel]
) -> str:
    """Return the notice if what is shown is not what the form asks for; else nothing.

    Args:
        shown: path of the file and the request behind the result; None where there is none.
        path: of the file in the form.
        read: returns the request in the form; it may raise `UnilensError`.
    """
    if not shown:
        return ""
    with contextlib.suppress(UnilensError):
        if tuple(shown) == (path, read().model_dump()):
            return ""
    return html_of("outdated.html")

"""The place where a photograph is dropped: its bytes are taken as they are."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import UnilensError


def upload(**settings: Any) -> gr.Image:
    """Return an image component that decodes nothing: `read_photograph` does, within limits.

    Not a class of its own: gradio writes a stub beside the module of every class of components.
    """
    component = gr.Image(type="filepath", **settings)
    component.preprocess = _path_of  # type: ignore[method-assign]
    return component


def _path_of(payload: Any) -> str | None:
    """Return the path of the uploaded file, which gradio has found to be one."""
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error(str(UnilensError("expected an uploaded photograph, got a link to one")))
    return str(payload.path)

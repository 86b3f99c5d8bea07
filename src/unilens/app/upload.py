"""The place where a photograph is dropped: its bytes are taken as they are."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any

import gradio as gr

from ..errors import UnilensError


def upload(**settings: Any) -> gr.Image:
    """Return an image component that decodes nothing: `read_photograph` does, within limits."""
    component: gr.Image = _Upload(type="filepath", **settings)
    return component


def _path_of(payload: Any) -> str | None:
    """Return the path of the uploaded file, which gradio has found to be one."""
    if payload is None:
        return None
    if not payload.path:
        raise gr.Error(str(UnilensError("expected an uploaded photograph, got a link to one")))
    return str(payload.path)


# A class and no changed instance: gradio builds a component anew from its class whenever an event
# updates it, even with nothing. Made past gradio's metaclass, which writes a stub beside the module
# of every class of components.
_Upload: Any = ABCMeta.__new__(
    type(gr.Image),
    "Upload",
    (gr.Image,),
    {
        "__module__": __name__,
        "__doc__": "An image that is taken as it is.",
        "is_template": True,  # in the browser it is its base class
        "preprocess": lambda self, payload: _path_of(payload),
    },
)

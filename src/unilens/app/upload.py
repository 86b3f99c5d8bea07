"""What a visitor's browser sends is taken as it is, and looked at by unilens alone."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any, TypeVar

import gradio as gr

from ..errors import UnilensError
from .handlers import refusal

Component = TypeVar("Component", bound=gr.components.Component)


def upload(**settings: Any) -> gr.Image:
    """Return an image component that decodes nothing: `read_photograph` does, within limits."""
    component: gr.Image = _Upload(type="filepath", **settings)
    return component


def as_given(component: Component) -> Component:
    """Return a component whose value comes as it was sent, to be checked by `read_wanted`.

    Its own check rounds 1.5 to a class, says nothing of "cat", and lists a thousand choices.
    """
    component.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return component


def without_links(blocks: gr.Blocks) -> None:
    """Let no part of a page fetch what a request links to: the server calls no other host."""
    for block in blocks.blocks.values():
        moved: Any = _Moved(block.async_move_resource_to_block_cache)
        block.async_move_resource_to_block_cache = moved  # type: ignore[method-assign]


class _Moved:
    """Moves files into gradio's cache, but never from another host."""

    def __init__(self, move: Any) -> None:
        self._move = move

    async def __call__(self, path: Any) -> Any:
        _refuse_link(path)
        return await self._move(path)


def _path_of(payload: Any) -> str | None:
    """Return the path in what was sent; `Files` finds out whether it may be read."""
    if payload is None:
        return None
    if not payload.path:
        raise refusal(UnilensError("expected an uploaded photograph, got a link to one"))
    return str(payload.path)


def _refuse_link(path: Any) -> None:
    if str(path).lower().startswith(("http:", "https:")):
        raise refusal(UnilensError("expected an uploaded file, got a link to one"))


async def _moved(self: gr.Image, path: Any) -> Any:
    _refuse_link(path)
    return await gr.Image.async_move_resource_to_block_cache(self, path)


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
        "async_move_resource_to_block_cache": _moved,
    },
)

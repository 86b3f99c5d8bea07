"""What a visitor's browser sends reaches unilens unchanged, and is checked there alone."""

from __future__ import annotations

from abc import ABCMeta
from typing import Any, TypeVar

import gradio as gr

from ..errors import UnilensError
from .handlers import visitor_error

Component = TypeVar("Component", bound=gr.components.Component)


def photograph_upload(**settings: Any) -> gr.Image:
    """Return an image component that decodes nothing: `read_photograph` does, within limits."""
    component: gr.Image = _Upload(type="filepath", **settings)
    return component


def unchecked(component: Component) -> Component:
    """Return a component whose value arrives as it was sent; `read_request` checks it.

    Gradio's own check rounds 1.5 to a class, and answers an unknown one with a thousand choices.
    """
    component.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return component


def refuse_links(blocks: gr.Blocks) -> None:
    """Keep every component from fetching a link in a request: the server calls no other host."""
    for block in blocks.blocks.values():
        cache: Any = _LocalFilesOnly(block.async_move_resource_to_block_cache)
        block.async_move_resource_to_block_cache = cache  # type: ignore[method-assign]


class _LocalFilesOnly:
    """Moves files into gradio's cache, but never from another host."""

    def __init__(self, move: Any) -> None:
        self._move = move

    async def __call__(self, path: Any) -> Any:
        _refuse_link(path)
        return await self._move(path)


def _refuse_link(path: Any) -> None:
    if str(path).lower().startswith(("http:", "https:")):
        raise visitor_error(UnilensError("expected an uploaded file, got a link to one"))


def _path_of(self: gr.Image, payload: Any) -> str | None:
    """Return the path in a payload; `VisitorFiles` decides whether it may be read."""
    if payload is None:
        return None
    if not payload.path:
        raise visitor_error(UnilensError("expected an uploaded photograph, got a link to one"))
    return str(payload.path)


async def _move_local(self: gr.Image, path: Any) -> Any:
    _refuse_link(path)
    return await gr.Image.async_move_resource_to_block_cache(self, path)


# A class, not a changed instance: gradio rebuilds a component from its class whenever an event
# updates it. Made without gradio's metaclass, which writes a stub beside the module of every class
# of components.
_Upload: Any = ABCMeta.__new__(
    type(gr.Image),
    "Upload",
    (gr.Image,),
    {
        "__module__": __name__,
        "__doc__": "An image that is not decoded.",
        "is_template": True,  # in the browser it is its base class
        "preprocess": _path_of,
        "async_move_resource_to_block_cache": _move_local,
    },
)

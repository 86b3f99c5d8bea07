"""What a visitor's browser sends reaches unilens unchanged, and is checked there alone."""

from __future__ import annotations

import functools
from abc import ABCMeta
from typing import Any, TypeVar

import gradio as gr

from ..errors import UnilensError
from .handlers import visitor_error

Component = TypeVar("Component", bound=gr.components.Component)


def photograph_upload(**settings: Any) -> gr.Image:
    """Return an image component that decodes nothing: `read_photograph` does, within limits."""
    component: gr.Image = _ImageUpload(type="filepath", **settings)
    return component


def file_upload(**settings: Any) -> gr.File:
    """Return a component of one file that reads nothing: `VisitorFiles` does."""
    component: gr.File = _FileUpload(type="filepath", file_count="single", **settings)
    return component


def unchecked(component: Component) -> Component:
    """Return a component whose value arrives as it was sent; `read_request` checks it.

    Gradio's own check rounds 1.5 to a class, and answers an unknown one with a thousand choices.
    """
    component.__class__ = _unchecked_class(type(component))
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


def _path_of(self: Component, payload: Any) -> str | None:
    """Return the path in a payload; `VisitorFiles` decides whether it may be read."""
    if payload is None:
        return None
    if not getattr(payload, "path", None):
        raise visitor_error(UnilensError("expected one uploaded file, got a link or several"))
    return str(payload.path)


def _upload_class(base: Any) -> Any:
    """Return a class of components that hand on the path of a file, and fetch no link."""

    async def move_local(self: Any, path: Any) -> Any:
        _refuse_link(path)
        return await base.async_move_resource_to_block_cache(self, path)

    doc = "A file that is not opened."
    members = {"preprocess": _path_of, "async_move_resource_to_block_cache": move_local}
    return _subclass(base, "Upload", __doc__=doc, **members)


@functools.cache
def _unchecked_class(base: Any) -> Any:
    """Return a class of components that hand on what was sent."""
    doc = "A value that is not checked."
    return _subclass(base, "Unchecked", __doc__=doc, preprocess=lambda self, payload: payload)


def _subclass(base: Any, suffix: str, **members: Any) -> Any:
    """Return a subclass of a component that is its base class in the browser."""
    members |= {"__module__": __name__, "is_template": True}
    return ABCMeta.__new__(type(base), f"{base.__name__}{suffix}", (base,), members)


# A class, not a changed instance: gradio rebuilds a component from its class whenever an event
# updates it. Made without gradio's metaclass, which writes a stub beside the module of every class
# of components.
_ImageUpload, _FileUpload = _upload_class(gr.Image), _upload_class(gr.File)

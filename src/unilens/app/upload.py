"""What a visitor's browser sends reaches unilens unchanged, and is checked there alone."""

from __future__ import annotations

import asyncio
import functools
import re
import shutil
from abc import ABCMeta
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
from gradio.route_utils import GradioMultiPartParser
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ..errors import UnilensError, require
from .files import VisitorFiles
from .handlers import visitor_error

Component = TypeVar("Component", bound=gr.components.Component)
MAX_UPLOADS = 16
"""Uploads that are received at once; others wait."""
_MAX_DEPTH = 50
_LINK = re.compile(r"\s*[a-z][a-z0-9+.-]+:(//|.*,)", re.IGNORECASE | re.DOTALL)
"""An address of another host, a file: or a data: one."""


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


def upload_endpoint(files: VisitorFiles, max_bytes: int) -> Callable[[Request], Awaitable[Any]]:
    """Return what receives an upload in place of gradio, which takes a thousand files at once.

    Gradio names a file by its digest, so that whoever knows the digest could ask for the file.

    Args:
        files: where it is put.
        max_bytes: of the file.
    """
    at_once = asyncio.Semaphore(MAX_UPLOADS)

    async def upload(request: Request) -> Response:
        if not _is_logged_in(request):
            return PlainTextResponse("expected a login first", 401)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return PlainTextResponse("expected one file, got another request", 400)
        async with at_once:
            folder = await run_in_threadpool(files.upload_folder)
            try:
                path = await _receive(request, folder, max_bytes)
            except MultiPartException as error:
                await run_in_threadpool(shutil.rmtree, folder, True)
                return PlainTextResponse(error.message, 413 if "size" in error.message else 400)
            except BaseException:  # the visitor is gone, or was cut off
                shutil.rmtree(folder, ignore_errors=True)
                raise
            await run_in_threadpool(files.make_room)
            return JSONResponse([str(path)])

    return upload


def _is_logged_in(request: Request) -> bool:
    app = request.app
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return app.auth is None or any(request.cookies.get(name) in app.tokens for name in names)


async def _receive(request: Request, folder: Path, max_bytes: int) -> Path:
    """Write the one file of an upload into a folder, and return its path."""
    parser = GradioMultiPartParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=0,
        upload_dir=folder,
        max_file_size=max_bytes,
    )
    form = await parser.parse()
    file: Any = form.get("files")
    if file is None or isinstance(file, str):
        raise MultiPartException("expected one file, got none")
    file.file.close()
    return Path(file.file.name).rename(folder / _file_name(file.filename or ""))


def _file_name(name: str) -> str:
    """Return a name without folders that every system takes, with its suffix."""
    last = re.split(r"[\\/]", name)[-1]
    stem, _, suffix = last.rpartition(".") if "." in last else (last, "", "")
    stem, suffix = (re.sub(r"[^\w .-]", "", part).strip(". ") for part in (stem, suffix))
    short = stem[:60].encode("utf-8", "ignore")[:160].decode("utf-8", "ignore") or "upload"
    return f"{short}.{suffix[:10]}" if suffix else short


class SafeBlocks(gr.Blocks):
    """A page whose components get files that were uploaded here, and no link.

    Gradio makes components anew when an event changes them or draws them, so that the check is
    here and in none of them.
    """

    visitor_files: VisitorFiles

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> Any:
        """Return what the handler of an event gets, after a look for files of elsewhere."""
        try:
            await run_in_threadpool(self._check, inputs, 0)
        except UnilensError as error:
            raise visitor_error(error) from None
        return await super().preprocess_data(block_fn, inputs, state, explicit_call)

    def _check(self, value: Any, depth: int) -> None:
        """Raise if there is a file of elsewhere in what was sent.

        Raises:
            UnilensError: a path is a link, or none of an uploaded file.
        """
        require(depth < _MAX_DEPTH, "expected the values of the page, got deeply nested ones")
        if isinstance(value, dict):
            self._check_file(value)
            value = list(value.values())
        if isinstance(value, list | tuple):
            for item in value:
                self._check(item, depth + 1)

    def _check_file(self, value: dict[str, Any]) -> None:
        """Raise if plain values are a file of elsewhere; other values may have a path of their own.

        Raises:
            UnilensError: as `_check`.
        """
        path = value.get("path")
        require(
            not (isinstance(path, str) and _LINK.match(path)),
            "expected an uploaded file, got a link to one",
        )
        if "meta" in value:
            whole = isinstance(path, str) and isinstance(value["meta"], dict)
            require(whole, "expected an uploaded file, got a link to one")
            require(not value.get("is_stream"), "expected an uploaded file, got a stream")
            self.visitor_files.resolve(str(path))


def _path_of(self: Component, payload: Any) -> str | None:
    """Return the path in a payload; `VisitorFiles` decides whether it may be read."""
    if payload is None:
        return None
    if not getattr(payload, "path", None):
        raise visitor_error(UnilensError("expected one uploaded file, got a link or several"))
    return str(payload.path)


def _upload_class(base: Any) -> Any:
    """Return a class of components that hand on the path of a file."""
    return _subclass(base, "Upload", __doc__="A file that is not opened.", preprocess=_path_of)


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

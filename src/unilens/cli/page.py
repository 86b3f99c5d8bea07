"""`unilens app`: the web page."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import Annotated

import typer

from ..app.server import installed_models, open_page
from ..errors import require
from ..models.loading import check_model_name
from . import options
from .app import app
from .output import show, waiting
from .photographs import read_device

PASSWORD = "UNILENS_PASSWORD"  # noqa: S105 - a variable's name


@app.command("app")
def page(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for all addresses of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model to offer, can be repeated; by default all installed ones."),
    ] = None,
    device: options.Device = "cpu",
    user: Annotated[
        str | None,
        typer.Option(help=f"Only user who may open it; the password is read from ${PASSWORD}."),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="Path at which a proxy mounts the page, such as /unilens.")
    ] = "",
    random_weights: options.RandomWeights = False,
) -> None:
    """Open a web page: see why, compare methods, follow the path.

    By default it listens on this machine only. It calls no other host.
    """
    require(0 <= port < 65536, f"expected --port between 0 and 65535, got {port}")
    names = tuple(dict.fromkeys(model or installed_models()))
    for name in names:
        check_model_name(name)
    read_device(device)
    password = os.environ.get(PASSWORD)
    require(
        user is None or bool(password),
        f"expected a password in the variable {PASSWORD} with --user, got none",
    )
    context = open_page(
        host=host,
        port=port,
        models=names,
        device=device,
        pretrained=not random_weights,
        login=None if user is None else (user, password or ""),
        root_path=root_path,
    )
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as stack:
        with waiting("opening the page"):
            address = stack.enter_context(context)
        show(f"unilens is open at {address} (Ctrl-C ends it)")
        while True:
            time.sleep(3600)


def _end(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that the files of visitors are removed."""
    raise SystemExit(128 + number)

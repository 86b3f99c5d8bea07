"""`unilens app`: the web page."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from typing import Annotated

import typer

from ..app.server import Options, installed_models, opened
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
        str, typer.Option(help="The address to listen on; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 for any that is free.")] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to offer, several times; by default all that are installed."),
    ] = None,
    device: options.Device = "cpu",
    user: Annotated[
        str | None,
        typer.Option(help=f"Who may open it; the password is read from ${PASSWORD}."),
    ] = None,
    root_path: Annotated[
        str, typer.Option(help="Where the page is mounted behind a proxy, such as /unilens.")
    ] = "",
    random_weights: options.RandomWeights = False,
) -> None:
    """Open a web page: see why, compare methods, walk along the path.

    It listens on this machine alone unless told otherwise, and calls no other host.
    """
    require(0 <= port < 65536, f"expected --port between 0 and 65535, got {port}")
    names = tuple(dict.fromkeys(model or installed_models()))
    for name in names:
        check_model_name(name)
    read_device(device)
    password = os.environ.get(PASSWORD)
    require(
        user is None or bool(password),
        f"expected a password in the variable {PASSWORD} beside --user, got none",
    )
    how = Options(host, port, names, device, not random_weights, user, password, root_path)
    signal.signal(signal.SIGTERM, _end)
    with ExitStack() as stack:
        with waiting("opening the page"):
            address = stack.enter_context(opened(how))
        show(f"unilens is open at {address} (Ctrl-C ends it)")
        while True:
            time.sleep(3600)


def _end(number: int, frame: object) -> None:
    """End as Ctrl-C does: what visitors have left is removed."""
    raise SystemExit(128 + number)

"""`unilens app`: the web page."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .._catalogue import check_model
from ..errors import require
from . import options
from .app import app
from .output import show, waiting
from .photographs import read_device

if TYPE_CHECKING:
    from ..app.model_sources import SeriesModel, TableModel

PASSWORD = "UNILENS_PASSWORD"  # noqa: S105 - a variable's name


@app.command("app")
def page(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address to listen on; 0.0.0.0 for all addresses of this machine.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", help="Port to listen on; 0 for a free one.")
    ] = 7860,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Model to offer; several as a,b or by repeating the option; by default all.",
        ),
    ] = None,
    device: options.Device = "cpu",
    user: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Only user who may open it; the password is read from ${PASSWORD}.",
        ),
    ] = None,
    root_path: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Path at which a proxy mounts the page, such as /unilens."
        ),
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Further name under which browsers reach it, such as page.example; can be "
            "repeated. It answers under no others.",
        ),
    ] = None,
    random_weights: options.RandomWeights = False,
    table_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model of a further tab for tables, as MODEL of explain-table: "
            "py:package.module:name, or a file.",
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Table of typical rows for --table-model, shown to visitors as example.",
        ),
    ] = None,
    label_column: options.LabelColumn = None,
    trust_pickle: options.TrustPickle = False,
    series_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Model of a further tab for series: py:package.module:name, or a .pt2.",
        ),
    ] = None,
    channels: Annotated[
        str,
        typer.Option(
            metavar="PLACE",
            help="Where --series-model has its channels: last (B, T, F) or first (B, C, T).",
        ),
    ] = "last",
    forecast: Annotated[
        bool,
        typer.Option(
            "--forecast", help="Outputs (B, H) of --series-model are steps of a forecast."
        ),
    ] = False,
) -> None:
    """Open a web page: see why, compare methods, follow the path.

    By default it listens on this machine only. It calls no other host.
    """
    require(0 <= port < 65536, f"expected --port between 0 and 65535, got {port}")
    given = [name.strip() for text in model or [] for name in text.split(",")]
    for name in given:
        check_model(name)
    from ..app.server import installed_models, open_page

    names = tuple(dict.fromkeys(given or installed_models()))
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
        hosts=allow_host or (),
        table=_table(table_model, references, label_column, trust_pickle),
        series=_series(series_model, channels, forecast),
    )
    end_on_signals()
    with ExitStack() as stack:
        with waiting("opening the page"):
            address = stack.enter_context(context)
        show(f"unilens is open at {address} (Ctrl-C ends it)")
        while True:
            time.sleep(3600)


def _table(
    model: str | None, references: Path | None, label_column: str | None, trust_pickle: bool
) -> TableModel | None:
    from ..app.model_sources import TableModel

    if model is not None:
        return TableModel(model, references, label_column, trust_pickle)
    given = references is not None or label_column is not None or trust_pickle
    require(not given, "expected --table-model with --references, --label-column or --trust-pickle")
    return None


def _series(model: str | None, channels: str, forecast: bool) -> SeriesModel | None:
    from ..app.model_sources import SeriesModel

    if model is not None:
        return SeriesModel(model, channels, forecast)
    require(
        channels == "last" and not forecast, "expected --series-model with --channels or --forecast"
    )
    return None


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the page as Ctrl-C does, so that visitors' files are removed."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup leaves SIGHUP
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    """End as Ctrl-C does, so that the files of visitors are removed."""
    raise SystemExit(128 + number)

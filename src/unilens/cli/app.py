"""The command line itself: its commands are beside this module."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Annotated

import typer

from .._validation.imports import current_folder_last
from ..errors import UnilensError
from ..output.text import LogFormatter
from .output import show, show_error, warnings_in_one_line

app = typer.Typer(
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,  # help in plain text: [a,b] is printed as it is
    pretty_exceptions_enable=False,
)
_INTERRUPTED = 130


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of unilens.", is_eager=True)
    ] = False,
) -> None:
    """Explain what a neural network saw."""
    if version:
        show(metadata.version("unilens"), highlight=False)
        raise typer.Exit


def main() -> None:
    """Run the command line; an error is printed as one line, and the exit code is not zero."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that cannot print a symbol prints "?"
            stream.reconfigure(errors="replace")
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(LogFormatter())
    with warnings_in_one_line(), current_folder_last():
        # large pictures are refused as an error
        warnings.filterwarnings("ignore", ".*decompression bomb")
        sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = int(app(arguments or ["--help"], prog_name="unilens", standalone_mode=False) or 0)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _show_failure(error)
    if code == _INTERRUPTED:
        show_error("interrupted")
    return code


def _show_failure(error: Exception) -> int:
    """Print an error as one line and return the exit code."""
    if isinstance(error, UnilensError):
        show_error(error)
        return 2
    usage = getattr(error, "format_message", None)  # of the argument parser's errors
    if usage is not None:
        show_error(f"{usage()} (see unilens --help)")
        return 2
    show_error(f"{type(error).__name__}: {error} (--debug shows where)")
    return 1


@contextmanager
def needs_extra(name: str, extra: str) -> Iterator[None]:
    """Say which extra a command needs where one of its imports is missing.

    Args:
        name: name of the command.
        extra: extra of the package that brings the missing module.

    Raises:
        UnilensError: a module of another package is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        if package == "unilens":
            raise
        raise UnilensError(
            f"unilens {name} needs {package}; run: pip install 'unilens[{extra}]'"
        ) from error

"""The command line itself: its commands are beside this module."""

from __future__ import annotations

import sys
import warnings
from typing import TextIO

import typer
from PIL import Image
from rich.console import Console
from rich.markup import escape

from ..errors import UnilensError, UnilensWarning
from ..output.viz import printable

app = typer.Typer(
    help="Explain what a neural network saw.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; every error is one line, and a non-zero exit."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused in a line
        warnings.simplefilter("default", UnilensWarning)
        warnings.showwarning = _show_warning
        _run(arguments, debug)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning of ours as one line, and others as Python does."""
    if issubclass(category, UnilensWarning):
        text = " ".join(printable(str(message)).split())
        err.print(f"[yellow]warning:[/] {escape(text)}", soft_wrap=True)
    else:
        (file or sys.stderr).write(
            warnings.formatwarning(message, category, filename, lineno, line)
        )


def _run(arguments: list[str], debug: bool) -> None:
    if not sys.path or sys.path[0] != "":
        sys.path.insert(0, "")  # py:module:function, beside the user
    try:
        code = app(
            [one for one in arguments if one != "--debug"] or ["--help"], standalone_mode=False
        )
        if code == _INTERRUPTED:
            fail("interrupted", code)
    except KeyboardInterrupt:
        fail("interrupted", _INTERRUPTED)
    except Exception as error:
        if debug:
            raise
        show = getattr(error, "format_message", None)
        if isinstance(error, UnilensError):
            fail(error, 2)
        elif show is not None:  # a usage error of the argument parser
            fail(f"{show()} (see unilens --help)", 2)
        else:
            fail(f"{type(error).__name__}: {error} (--debug shows where)", 1)
    else:
        sys.exit(code)


def complain(error: object) -> None:
    """Print an error as one line."""
    line = " ".join(printable(str(error)).split())
    err.print(f"[red]error:[/] {escape(line)}", soft_wrap=True)


def fail(error: object, code: int) -> None:
    """Print an error as one line, and end."""
    complain(error)
    sys.exit(code)

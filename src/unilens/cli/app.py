"""The command line itself: its commands are beside this module."""

from __future__ import annotations

import io
import sys
import warnings

import typer
from PIL import Image

from ..errors import UnilensError
from .output import show_error, warnings_in_one_line

app = typer.Typer(
    help="Explain what a neural network saw.",
    epilog="--debug, anywhere, shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_INTERRUPTED = 130


def main() -> None:
    """Run the command line; an error is printed as one line, and the exit code is not zero."""
    if not sys.path or sys.path[0] != "":
        sys.path.insert(0, "")  # for py:module:function in the current folder
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # one that cannot print a symbol prints "?"
            stream.reconfigure(errors="replace")
    with warnings_in_one_line():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # refused as an error
        sys.exit(_run(sys.argv[1:]))


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit code."""
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = int(app(arguments or ["--help"], standalone_mode=False) or 0)
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


def add_missing_command(name: str, extra: str, missing: ModuleNotFoundError) -> None:
    """Register a command that only says which extra it needs.

    Args:
        name: name of the command.
        extra: extra of the package that brings the missing module.
        missing: error raised when the command was imported.

    Raises:
        ModuleNotFoundError: the missing module is part of unilens, which no extra brings.
    """
    package = str(missing.name).partition(".")[0]
    if package == "unilens":
        raise missing
    install = f"pip install 'unilens[{extra}]'"

    @app.command(
        name,
        help=f"Needs the extra {extra}: {install}.",
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def refuse(context: typer.Context) -> None:
        raise UnilensError(f"unilens {name} needs {package}; run: {install}")

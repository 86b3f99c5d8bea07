"""Commands whose extra is not installed: they are listed, and say what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import typer

from ..errors import UnilensError
from .app import app


def stand_in(commands: Iterable[str], extra: str, missing: ModuleNotFoundError) -> None:
    """Register commands that say which extra they need.

    Args:
        commands: their names.
        extra: of the package, which brings what is missing.
        missing: what importing the commands raised.

    Raises:
        ModuleNotFoundError: what is missing is a part of unilens itself, which no extra brings.
    """
    package = str(missing.name).partition(".")[0]
    if package == "unilens":
        raise missing
    for name in commands:
        app.command(
            name,
            help=f"Needs the extra {extra}: pip install 'unilens[{extra}]'.",
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_complaint(name, extra, package))


def _complaint(command: str, extra: str, package: str) -> Callable[[typer.Context], None]:
    def complain(context: typer.Context) -> None:
        raise UnilensError(
            f"unilens {command} needs {package}; run: pip install 'unilens[{extra}]'"
        )

    return complain

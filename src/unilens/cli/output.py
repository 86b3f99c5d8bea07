"""Everything that the command line prints: lines, tables, JSON, warnings, errors and progress."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from ..errors import UnilensWarning
from ..output.text import one_line, printable, terminal_safe

if TYPE_CHECKING:
    from ..output.levels import Line

_out = Console(emoji=False)
_err = Console(stderr=True, emoji=False)
_RATE_SECONDS = 120.0
"""Over which the rate and the time left are estimated."""


def show(text: object = "", *, title: str = "", highlight: bool = True) -> None:
    """Print a text, whatever it holds, after a bold title."""
    bold = f"[bold]{_cell(title)}[/]" if title else ""
    line = bold + _markup(text)
    indent = len(line) - len(line.lstrip(" "))
    if _out.is_terminal and indent:
        _out.print(Padding(line.lstrip(" "), (0, 0, 0, indent)), highlight=highlight)
    else:
        _out.print(line, soft_wrap=not _out.is_terminal, highlight=highlight)


def show_renderable(renderable: object) -> None:
    """Print anything that rich can draw; on a terminal, text is broken at words."""
    _out.print(renderable, soft_wrap=not _out.is_terminal)


def show_json(value: object) -> None:
    """Print a value as one line of JSON, at once."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def show_table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Container[int] = (),
    whole: Container[int] = (),
    max_width: int | None = None,
) -> None:
    """Print a table without lines.

    Args:
        headings: one per column; empty for a table without headings.
        rows: their cells.
        right: columns that are aligned to the right.
        whole: columns whose cells stay on one line.
        max_width: of a column.
    """
    table = Table(box=None, pad_edge=False, show_header=bool(headings))
    for column, heading in enumerate(headings):
        table.add_column(
            _cell(heading),
            overflow="fold",
            justify="right" if column in right else "left",
            no_wrap=column in whole,
            max_width=max_width,
        )
    for row in rows:
        table.add_row(*map(_cell, row))
    _out.print(table)


def width() -> int:
    """Return how many columns of text fit in a line."""
    return _out.width


def table_width(rows: Sequence[Sequence[str]]) -> int:
    """Return how many columns of text a table takes that is not broken."""
    columns = zip(*rows, strict=True)
    return sum(2 + max(cell_len(cell) for cell in column) for column in columns) - 2


def show_prediction(record: Mapping[str, Any], title: str = "") -> None:
    """Print the explained class of a record, with its probability if it has one."""
    target, confidence = record["target"], record["confidence"]
    probability = "" if confidence is None else f", probability {format_number(confidence)}"
    show(f"{target['label']} (class {target['index']}){probability}", title=title)


def show_verdict(verdict: str, warnings: list[str], title: str = "    ") -> None:
    """Print the verdict on a map after a title, in the colour of its warnings' level."""
    from ..output.levels import verdict_line

    _show_line(title, verdict_line(verdict, warnings))


def show_warnings(warnings: list[str]) -> None:
    """Print the warnings of a map, the highest level first, in the colours of their levels."""
    from ..output.levels import warning_lines

    for line in warning_lines(warnings):
        _show_line("    ", line)


def _show_line(title: str, line: Line) -> None:
    title, shown = (terminal_safe(printable(text)) for text in (title, str(line)))
    head, colon, rest = shown.partition(":")
    text = Text.assemble((head + colon, line.style.terminal), rest)
    if _out.is_terminal:  # broken at words, and what follows stays beside the title
        table = Table.grid()
        table.add_row(title, text)
        _out.print(table)
    else:
        _out.print(Text.assemble(title, text), soft_wrap=True)


def show_written(path: Path, suffixes: Sequence[str] = ("",)) -> None:
    """Print which files were written: a path, and what follows it in each file's name."""
    line = f"  written: {path}{', '.join(suffixes)}"
    _out.print(_cell(line), soft_wrap=True, highlight=False)  # whole, to be copied


def show_error(error: object) -> None:
    """Print an error as one line."""
    text = f"[red]error:[/] {_markup(one_line(error))}"
    _err.print(text, soft_wrap=not _err.is_terminal)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Print each warning of unilens as one line, and others as Python does."""

    def print_warning(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, UnilensWarning):
            _err.print(f"[yellow]warning:[/] {_markup(one_line(message))}", soft_wrap=True)
        else:
            text = warnings.formatwarning(message, category, filename, lineno, line)
            shown = terminal_safe(printable(text.rstrip("\n"))).replace("\n", "\n  ")
            (file or sys.stderr).write(f"{shown}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("default", UnilensWarning)
        warnings.showwarning = print_warning
        yield


def waiting(text: str) -> AbstractContextManager[object]:
    """Show that something takes a while, if there is a terminal."""
    return _err.status(_markup(text)) if _err.is_terminal else nullcontext()


class ProgressBar:
    """How much of the work is done, shown if there is a terminal."""

    def __init__(self, bar: Progress, total: int | None) -> None:
        self._bar = bar
        self._task = bar.add_task("", total=total, start=total is not None)

    def advance(self, text: str = "", steps: int = 1) -> None:
        """Add finished steps; a text replaces the description."""
        description = _cell(text) if text else None
        self._bar.update(self._task, advance=steps, description=description)

    def set(self, done: int, total: int, text: str) -> None:
        """Say how many steps are done of how many; the clock starts at the first call."""
        if self._bar.tasks[0].total is None:
            self._bar.reset(self._task, total=total, completed=done)
        self._bar.update(self._task, completed=done, description=_cell(text))


class _Rate(ProgressColumn):
    """Rows per minute."""

    def render(self, task: Task) -> Text:
        """Return the rate as text."""
        return Text("" if task.speed is None else f"{60 * task.speed:.0f} rows/min")


@contextmanager
def progress(total: int | None) -> Iterator[ProgressBar]:
    """Show a bar; without a total also the rate, and the time left once the total is set."""
    columns: list[ProgressColumn] = [BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    if total is None:
        columns[2:2] = [_Rate()]
        columns += [TextColumn("left"), TimeRemainingColumn()]
    bar = Progress(
        TextColumn("{task.description}"),
        *columns,
        console=_err,
        transient=True,
        speed_estimate_period=_RATE_SECONDS,
    )
    with bar if _err.is_terminal else nullcontext():
        yield ProgressBar(bar, total)


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with this many decimals; if they would all be zero, with its power of ten."""
    if value is None:
        return "-"
    return f"{value:.1e}" if 0 < abs(value) < 0.5 * 10**-digits else f"{value:.{digits}f}"


def _markup(text: object) -> str:
    return escape(terminal_safe(printable(str(text))))


def _cell(text: object) -> str:
    """Return a text in one line; its blanks stay."""
    return _markup(str(text).replace("\n", " ").replace("\t", " "))

"""The matrix of a generated text in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...output.text import terminal_safe
from ..colours import terminal_style
from .attribution import GenerationAttribution
from .heatmap import number
from .render import facts
from .units import Span, UnitMatrix

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

_WIDEST = 12
"""Cells of a column's heading, and of a row's label twice as many; longer ones are cut."""


@dataclass(frozen=True, slots=True)
class MatrixPicture:
    """A matrix as rich draws it: as many columns as the terminal has room for.

    Attributes:
        attribution: to draw.
        by: "token", "word" or "sentence".
        spans: parts of the prompt; see `GenerationAttribution.by`.
    """

    attribution: GenerationAttribution
    by: str = "token"
    spans: Sequence[Span] = ()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what is explained, the matrix, and which columns it has."""
        from rich.text import Text

        matrix = self.attribution.by(self.by, spans=self.spans)
        drawn = _Columns.that_fit(matrix, options.max_width)
        method = self.attribution.provenance.get("method", "attribution")
        yield Text(terminal_safe(f"{method}: {facts(self.attribution, self.by)}"))
        yield drawn.table(matrix, options.max_width)
        yield Text(drawn.legend(matrix))


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns that are drawn, in order, and the number of those that are summed in one."""

    shown: list[int]
    summed: list[int]

    @classmethod
    def that_fit(cls, matrix: UnitMatrix, width: int) -> _Columns:
        """Return all columns if they fit into a width, else the strongest."""
        columns = matrix.defined_columns
        left = width - max((_width(label) for label in _row_labels(matrix, width)), default=0)
        widest = max(map(len, _numbers(matrix)), default=0)
        left -= widest + 1  # the scores
        widths = {
            column: 1 + max(widest, _width(_cut(matrix.columns.labels[column], _WIDEST)))
            for column in columns
        }
        if sum(widths.values()) <= left:
            return cls(columns, [])
        left -= widest + 2  # the sum of the others
        strength = matrix.values.nan_to_num().abs().amax(0)
        shown: list[int] = []
        for column in sorted(columns, key=lambda column: -float(strength[column])):
            if widths[column] > left:
                break
            shown.append(column)
            left -= widths[column]
        return cls(sorted(shown), [column for column in columns if column not in shown])

    def table(self, matrix: UnitMatrix, width: int) -> Table:
        """Return the matrix as a table of rich."""
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 0, 0, 1), pad_edge=False)
        table.add_column("", justify="right", no_wrap=True)
        table.add_column("score", justify="right", no_wrap=True, style="dim")
        for column in self.shown:
            style = "italic" if column >= matrix.n_prompt else "bold"
            heading = Text(_cut(matrix.columns.labels[column], _WIDEST), style=style)
            table.add_column(heading, justify="right", no_wrap=True)
        if self.summed:
            table.add_column(Text("others", style="dim"), justify="right", no_wrap=True)
        scale = matrix.scale
        for row, label in zip(matrix.defined_rows, _row_labels(matrix, width), strict=True):
            cells = [_cell(value, scale) for value in matrix.values[row, self.shown].tolist()]
            rest = matrix.values[row, self.summed].nansum().item()
            others = [number(rest, scale)] if self.summed else []
            table.add_row(Text(label), number(float(matrix.score[row]), scale), *cells, *others)
        return table

    def legend(self, matrix: UnitMatrix) -> str:
        """Return what rows and columns are."""
        text = "Rows are generated; columns come before: the prompt bold, generated ones italic."
        if not self.summed:
            return text
        total = matrix.values.nan_to_num().abs().sum().item()
        part = matrix.values[:, self.shown].nan_to_num().abs().sum().item()
        share = f", {part / total:.0%} of all absolute values" if total else ""
        count = len(self.shown) + len(self.summed)
        return f"{text} The {len(self.shown)} strongest of {count} columns{share}."


def rich_matrix(
    attribution: GenerationAttribution, by: str = "token", spans: Sequence[Span] = ()
) -> MatrixPicture:
    """Return an attribution for `rich.print`; see `MatrixPicture`."""
    return MatrixPicture(attribution, by, spans)


def _numbers(matrix: UnitMatrix) -> list[str]:
    scale = matrix.scale
    values = [*matrix.values.flatten().tolist(), *matrix.score.tolist()]
    return [*(number(value, scale) for value in values), "score"]


def _cell(value: float, scale: float) -> Text:
    from rich.text import Text

    undefined = value != value
    return Text("") if undefined else Text(number(value, scale), terminal_style(value, scale))


def _row_labels(matrix: UnitMatrix, width: int) -> list[str]:
    most = max(min(2 * _WIDEST, width // 3), 2)
    return [_cut(matrix.row_label(row), most) for row in matrix.defined_rows]


def _cut(label: str, most: int) -> str:
    """Return a label without commands of the terminal, in at most so many of its cells."""
    from rich.cells import set_cell_size

    safe = terminal_safe(label)
    return safe if _width(safe) <= most else set_cell_size(safe, most - 1).rstrip() + "…"


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


GenerationAttribution.__rich__ = rich_matrix  # type: ignore[attr-defined]  # rich asks for it

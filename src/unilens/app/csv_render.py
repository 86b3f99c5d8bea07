"""What the tabs of tables and series show, as HTML: texts are escaped."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..attribution import Attribution
from ..output.levels import lines
from ..output.text import one_line, probability_text
from ..tables import TableAttribution, beeswarm
from ..tables.pictures import row_parts
from ..tables.reading import text
from .render import html_of
from .trust import answers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 10
_MOST_COLUMNS = 12
_LONGEST = 120


class Bar(NamedTuple):
    """One bar, from `left` on, `width` long, both in percent of the track.

    Attributes:
        name: of the column, or the cell of a series.
        cell: what is there; empty for several together.
        value: in units of the score.
        error: standard error of the value; None for exact values.
        left: where it begins.
        width: how long it is.
    """

    name: str
    cell: str
    value: float
    error: float | None
    left: float
    width: float


def preview_html(frame: Any, predictions: TableAttribution | None, count: int) -> str:
    """Return the first rows, with what the model predicts for them.

    Args:
        frame: the first rows, of pandas.
        predictions: of the model for these rows; None for none.
        count: how many rows the file has.
    """
    names = [shortened(name) for name in frame.columns[:_MOST_COLUMNS]]
    rows = []
    for row in range(len(frame)):
        cells = [shortened(text(cell)) for cell in frame.iloc[row, :_MOST_COLUMNS].tolist()]
        predicted = None if predictions is None else prediction_text(predictions, row)
        rows.append({"number": row, "cells": cells, "predicted": predicted})
    return html_of(
        "preview.html",
        names=names,
        rows=rows,
        count=count,
        columns=frame.shape[1],
        more=frame.shape[1] - len(names),
    )


def prediction_text(result: TableAttribution, row: int) -> str:
    """Return what the model predicts for a row, in a few words."""
    score = score_text(float(result.score[row]), result.unit)
    return f"{shortened(result.target[row])} ({score})" if result.has_classes else score


def score_text(value: float, unit: str) -> str:
    """Return a score with three digits; a probability is never 0 or 1 by rounding."""
    digits = f"{value:.3g}"
    is_rounded = unit == "probability" and 0 < value < 1 and digits in ("0", "1")
    return probability_text(value) if is_rounded else digits


def row_html(result: TableAttribution, row: int, number: int) -> str:
    """Return how the columns of one row lead from the base to the score.

    Args:
        result: of several rows.
        row: which of them.
        number: of the row in the file.
    """
    base, score = float(result.base[row]), float(result.score[row])
    whole = base == base and result.attribution.complete
    parts = row_parts(result, row, _SHOWN)
    found = [(shortened(p.name), shortened(p.cell), p.value, p.standard_error) for p in parts]
    label = shortened(result.target[row]) if result.has_classes else None
    verdict, *warnings = lines(result.attribution, row)
    return html_of(
        "contributions.html",
        title=f"Row {number}",
        label=label,
        unit=result.unit,
        score=score_text(score, result.unit),
        base=score_text(base, result.unit) if whole else None,
        provenance=result.provenance,
        verdict=verdict,
        warnings=warnings,
        answers=answers(result.attribution, row, "row"),
        bars=_bars(found, base if whole else None),
    )


def summary_html(result: TableAttribution) -> str:
    """Return how strong each column is in all rows, and a beeswarm."""
    means = result.attribution.values.double().abs().mean(0).tolist()
    order = sorted(range(len(means)), key=lambda index: -means[index])[: _SHOWN + 5]
    found = [(shortened(result.names[index]), "", means[index], None) for index in order]
    return html_of(
        "summary.html",
        count=len(result),
        unit=result.unit,
        bars=_bars(found, None),
        left_out=len(means) - len(order),
        picture=figure_uri(beeswarm(result)),
    )


def series_html(
    attribution: Attribution,
    figure: Figure,
    strongest: Sequence[tuple[str, str, float]],
    *,
    question: str,
    unit: str,
    score: float,
) -> str:
    """Return the picture of a series with its map in colour, and its strongest cells.

    Args:
        attribution: of one series.
        figure: the picture.
        strongest: names, what is there, and values.
        question: what the map answers.
        unit: of the score.
        score: of the series.
    """
    verdict, *warnings = lines(attribution)
    cells = [(shortened(name), cell, value, None) for name, cell, value in strongest]
    return html_of(
        "series.html",
        question=question,
        unit=unit,
        score=score_text(score, unit),
        provenance=attribution.provenance,
        verdict=verdict,
        warnings=warnings,
        answers=answers(attribution, 0, "series"),
        picture=figure_uri(figure),
        bars=_bars(cells, None),
    )


def figure_uri(figure: Figure) -> str:
    """Return a figure as the URI of an image."""
    return "data:image/png;base64," + base64.b64encode(figure_bytes(figure)).decode()


def figure_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def shortened(value: object) -> str:
    """Return a name or a cell in one line, not too long for a page."""
    line = one_line(value)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _bars(found: Iterable[tuple[str, str, float, float | None]], base: float | None) -> list[Bar]:
    """Return bars: each begins where the one before ends, from the base; or all begin at 0."""
    parts = list(found)
    starts, end = [], 0.0 if base is None else base
    for _, _, value, _ in parts:
        starts.append(end)
        end += value if base is not None else 0.0
    ends = [start + value for start, (_, _, value, _) in zip(starts, parts, strict=True)]
    low, high = min([*starts, *ends], default=0.0), max([*starts, *ends], default=0.0)
    span = (high - low) or 1.0
    return [
        Bar(*part, 100 * (min(start, stop) - low) / span, 100 * abs(stop - start) / span)
        for part, start, stop in zip(parts, starts, ends, strict=True)
    ]

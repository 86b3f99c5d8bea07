"""The results of the study: JSON, CSV of every image, a figure, and the table of the page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unilens._ops import files
from unilens.output import records
from unilens.output.viz import heatmap, pixels

from .fitting import FittedSet
from .study import ALIGNED, MEASURES, Scores

_SHOWN = (
    ALIGNED,
    "ig:baseline=black",
    "ig:baseline=blur",
    "ig:baseline=uniform_noise",
    "uni_blur",
    "gradient",
    "input_x_gradient",
    "smoothgrad",
)


def rows_of(scores: Scores) -> list[dict[str, Any]]:
    """Return the means of each method, the most tangential first.

    `significant`: whether the paired test, adjusted for all pairs, finds a difference from the
    first; None for the first itself.
    """
    rows: list[dict[str, Any]] = []
    for column, summary in enumerate(scores.summaries):
        random = scores.random["alignment"]
        row = {
            "method": summary.method,
            "n": summary.n,
            "alignment": summary.mean,
            "low": summary.low,
            "high": summary.high,
            "ratio": None if summary.mean is None else summary.mean / random,
            "seconds": scores.seconds[summary.method],
        }
        for name in MEASURES[1:]:
            row[name] = _mean(scores.values[name][:, column])
        rows.append(row)
    rows.sort(key=lambda row: -math.inf if row["alignment"] is None else -row["alignment"])
    leader = str(rows[0]["method"])
    apart = {
        pair.second if pair.first == leader else pair.first: pair.significant
        for pair in scores.pairs
        if leader in (pair.first, pair.second)
    }
    return [row | {"significant": apart.get(row["method"])} for row in rows]


def write_scores(scores: Scores, fitted: FittedSet, folder: Path, settings: dict[str, Any]) -> None:
    """Write `score.json`, `score.csv` and `score.png` to a folder, each whole or not at all."""
    records.write_json(
        folder / "score",
        {
            "fit": fitted.about,
            "settings": settings,
            "images": len(scores.names),
            "random": dict(scores.random),
            "methods": rows_of(scores),
        },
    )
    records.write_text(folder / "score", ".csv", _csv(scores))
    figure = draw(scores)
    files.write_whole(folder / "score", ".png", lambda name: figure.savefig(name, dpi=110))


def draw(scores: Scores) -> Figure:
    """Return the first images with their aligned base-points and maps, and how tangential."""
    shown = [text for text in _SHOWN if text in scores.methods] or list(
        scores.methods[: len(_SHOWN)]
    )
    beside = 1 + (scores.baselines is not None)
    rows, columns = len(scores.images), beside + len(shown)
    figure = Figure(figsize=(1.35 * columns, 1.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for row in range(rows):
        pictures = [pixels(scores.images[row])]
        if scores.baselines is not None:
            pictures.append(pixels(scores.baselines[row]))
        pictures += [heatmap(scores.maps[text][row]) for text in shown]
        contents = [scores.values["alignment"][row, scores.methods.index(text)] for text in shown]
        for place, picture in enumerate(pictures):
            ax = axes[row, place]
            ax.imshow(picture.clip(0, 1))
            ax.set_xticks([])
            ax.set_yticks([])
            if place >= beside:
                ax.set_xlabel(f"μ {contents[place - beside]:.2f}", fontsize=8)
    headings = ["image", "aligned base-point"][:beside] + [
        short(text).replace("from ", "from\n") for text in shown
    ]
    for ax, heading in zip(axes[0], headings, strict=True):
        ax.set_title(heading, fontsize=8)
    return figure


def short(text: str) -> str:
    """Return a method as people would call it, without the settings behind its baseline."""
    if not text.startswith("ig:baseline="):
        return text
    return text.split(",")[0].replace("ig:baseline=", "IG from ").replace("_", " ")


def print_table(scores: Scores, about: Mapping[str, Any]) -> None:
    """Print the means of each method, and how they are to be read."""
    table = Table(box=None, pad_edge=False)
    for heading in ("method", "μ ↑", "95 %", "local μ", "distance", "change"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for row in rows_of(scores):
        table.add_row(
            escape(short(row["method"])),
            _figure(row["alignment"]) + (" " if row["significant"] else "*"),
            f"{_figure(row['low'])}–{_figure(row['high'])}",
            _figure(row["local_alignment"]),
            _figure(row["distance"], 2),
            _figure(row["score_change"]),
        )
    console = Console()
    console.print(table)
    console.print(
        f"μ: the share of the map in the tangent space of {about['config']['kind']}; a random map "
        f"has {scores.random['alignment']:.3f}. * the first, or no significant difference from it. "
        f"local μ: under local PCA, random {scores.random['local_alignment']:.3f}. distance, "
        f"change: l2 and of the score, from the baseline. Fit: {about['manifold']}; accuracy "
        f"{about['accuracy']}."
    )


def _figure(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _csv(scores: Scores) -> str:
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(["image", "method", *MEASURES])
    for row, name in enumerate(scores.names):
        for column, text in enumerate(scores.methods):
            values = [scores.values[measure][row, column] for measure in MEASURES]
            shown = [f"{value:.6g}" if math.isfinite(value) else "" for value in values]
            table.writerow([name, text, *shown])
    return written.getvalue()


def _mean(values: numpy.ndarray[Any, Any]) -> float | None:
    known = values[numpy.isfinite(values)]
    return float(known.mean()) if len(known) else None

"""The gallery of a report: the best, the median and the worst map of each method."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..plan import Plan
from .cells import Cells


@dataclass(frozen=True)
class _GalleryImage:
    """An image of the gallery: its rank (`best`, ...), its value, and the picture as a data URL."""

    rank: str
    image: str
    value: float
    address: str


def gallery(plan: Plan, cells: Cells, corruption: str, severity: int) -> list[dict[str, Any]]:
    """Return the best, median and worst picture of each method by model."""
    metric = plan.rank_by or plan.metrics[0]
    rows = cells.gallery(corruption, severity, metric)
    chosen: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    for key, group in groupby(rows, lambda row: (row[0], row[1])):
        ranked = [(image, value) for _, _, image, value in group]
        chosen[key] = _pick(ranked, plan.card(metric).higher_is_better is not False)
    keys = [(*key, image) for key, picks in chosen.items() for _, image, _ in picks]
    pictures = cells.pictures(corruption, severity, keys) if keys else {}
    return [
        {
            "model": model,
            "methods": [
                (
                    method,
                    [
                        _GalleryImage(rank, image, value, _data_url(pictures[model, method, image]))
                        for rank, image, value in chosen[model, method]
                    ],
                )
                for method in plan.methods
                if (model, method) in chosen
            ],
        }
        for model in plan.models
        if any(key[0] == model for key in chosen)
    ]


def _pick(ranked: list[tuple[str, float]], higher: bool) -> list[tuple[str, str, float]]:
    """Return best, median and worst of images in ascending order of value, each image once."""
    ordered = ranked[::-1] if higher else ranked
    indices = {"best": 0, "median": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    names = {index: name for name, index in reversed(indices.items())}
    return [(name, *ordered[index]) for index, name in sorted(names.items())]


def _data_url(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"

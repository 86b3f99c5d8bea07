"""The pictures of a report: the best, the median and the worst of each method."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..plan import Plan
from .cells import Cells


@dataclass(frozen=True)
class Shown:
    """One image in the gallery: which it is, its value, and the picture as a data address."""

    place: str
    image: str
    value: float
    address: str


def gallery(plan: Plan, cells: Cells, corruption: str, severity: int) -> list[dict[str, Any]]:
    """Return the best, median and worst picture of each method, by model."""
    metric = plan.rank_by or plan.metrics[0]
    found = cells.gallery(corruption, severity, metric)
    chosen: dict[tuple[str, str], list[tuple[str, str, float]]] = {}
    for place, group in groupby(found, lambda one: (one[0], one[1])):
        ranked = [(image, value) for _, _, image, value in group]
        chosen[place] = _picked(ranked, plan.card(metric).higher_is_better is not False)
    wanted = [(*place, image) for place, some in chosen.items() for _, image, _ in some]
    seen = cells.pictures(corruption, severity, wanted) if wanted else {}
    return [
        {
            "model": model,
            "methods": [
                (method, [_shown(model, method, one, seen) for one in chosen[model, method]])
                for method in plan.methods
                if (model, method) in chosen
            ],
        }
        for model in plan.models
        if any(place[0] == model for place in chosen)
    ]


def _picked(ranked: list[tuple[str, float]], higher: bool) -> list[tuple[str, str, float]]:
    """Return best, median and worst of images in ascending order of value, each image once."""
    ordered = ranked[::-1] if higher else ranked
    places = {"best": 0, "median": (len(ordered) - 1) // 2, "worst": len(ordered) - 1}
    once = {place: name for name, place in reversed(places.items())}
    return [(name, *ordered[place]) for place, name in sorted(once.items())]


def _shown(
    model: str,
    method: str,
    one: tuple[str, str, float],
    seen: Mapping[tuple[str, str, str], bytes],
) -> Shown:
    place, image, value = one
    encoded = base64.b64encode(seen[model, method, image]).decode()
    return Shown(place, image, value, f"data:image/webp;base64,{encoded}")

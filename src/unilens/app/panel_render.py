"""The panels beside the maps, as HTML: why one class and not another, and the second opinion."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..metrics.agreement import Agreement
from ..output.levels import lines
from ..output.viz import Array, colour_scale, flatten, pixels
from .render import (
    heatmap_uri,
    html_of,
    overlay_uri,
    photograph_uri,
    picture_uri,
    strongest_region,
)
from .second_opinion import compared, conclusion
from .service import Explanation

_DIM = 0.35
"""Brightness of the photograph where no method sees anything."""
_OUTLINE = (0.95, 0.89, 0.26)
_OUTLINE_WIDTH = 5
"""Of the window whose neighbourhood is drawn: the outline is two pixels wide."""


def contrast_html(explanation: Explanation) -> str:
    """Return why a photograph is the target rather than the class it is contrasted with."""
    assert explanation.against is not None
    (name, attribution), *_ = explanation.attributions.items()
    values = attribution.values[0]
    scale = colour_scale(flatten(values, "signed"))
    start = attribution.baseline_score
    summed = values.double().sum(0)
    return html_of(
        "contrast.html",
        name=name,
        label=explanation.label,
        other=explanation.model.label(explanation.against),
        score=float(attribution.score[0]),
        start=None if start is None else float(start[0]),
        gains=_part(summed.clamp(min=0)),
        losses=_part(summed.clamp(max=0)),
        verdict=lines(attribution)[0],
        photograph=photograph_uri(explanation.pixels),
        overlay=overlay_uri(values),
        heatmap=heatmap_uri(values, scale),
    )


def _part(values: Tensor) -> dict[str, Any]:
    """Return how much the positive or the negative part of a map is, and where it is strongest."""
    return {"sum": float(values.sum()), "where": strongest_region(values.unsqueeze(0))}


def opinion_html(opinion: Explanation, found: Agreement) -> str:
    """Return where the maps of several methods agree, with each map and the numbers."""
    shared, methods = found.consensus[0], compared(found)
    maps = {name: attribution.values[0] for name, attribution in opinion.attributions.items()}
    return html_of(
        "opinion.html",
        label=opinion.label,
        methods=methods,
        constant=[name for name in found.names if name not in (*methods, *found.controls)],
        overlap=float(found.overlap[0]),
        control_overlap=_known(float(found.control_overlap[0])),
        chance=found.top,
        conclusion=conclusion(found),
        where=strongest_region(shared.unsqueeze(0)),
        spotlight=picture_uri(spotlight(opinion.pixels, shared)),
        maps={
            name: heatmap_uri(values, colour_scale(flatten(values, "signed")))
            for name, values in maps.items()
        },
        pairs=_pairs(found),
        left_out=opinion.left_out,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def _pairs(found: Agreement) -> list[dict[str, Any]]:
    """Return the overlap and the rank correlation of every two maps."""
    return [
        {
            "names": (found.names[first], found.names[second]),
            "overlap": _known(float(found.overlaps[0, first, second])),
            "correlation": float(found.correlations[0, first, second]),
        }
        for first, second in combinations(range(len(found.names)), 2)
    ]


def spotlight(image: Tensor, consensus: Tensor) -> Array:
    """Return a photograph that is bright where methods agree, `(H, W, 3)` in [0, 1].

    Args:
        image: `(3, H, W)`.
        consensus: `(H, W)`, the share of methods; where it is 1, an outline is drawn around it.
    """
    share = consensus.nan_to_num().to("cpu", torch.float32)
    everyone = (share > 1 - 1e-6).float()
    around = max_pool2d(everyone[None], _OUTLINE_WIDTH, stride=1, padding=_OUTLINE_WIDTH // 2)[0]
    bright: Array = pixels(image) * (_DIM + (1 - _DIM) * share).numpy()[..., None]
    bright[(around > everyone).numpy()] = _OUTLINE
    return bright

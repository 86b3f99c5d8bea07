"""What the page shows, as HTML: texts are escaped, and images have alternative texts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from ..attribution import Attribution
from ..methods import methods
from ..output.colours import overlay_layer
from ..output.html import environment
from ..output.viz import Array, colour_scale, coloured, data_uri, flatten, pixels
from .checks import CONTROL, MapChecks
from .path_steps import MAX_STEPS, STOPS, PathSteps
from .service import Explanation, Predictions
from .trust import LIGHTS, TrustReport, compared, map_lines, trust_report
from .wording import percent, signed, title_of

DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 3")
"""Of the curves of four methods and the control; page.css has their colours."""
MAX_SCALE_RATIO = 4
"""How many times weaker than the strongest map one may be and still share its colour scale."""
_WIDTH, _HEIGHT = 320, 180
_NOTABLE = 0.02
"""Smaller changes of the confidence are not told."""
_CHARTS = {
    "insertion_auc": "Insertion: the most important pixels come first",
    "deletion_auc": "Deletion: the most important pixels go first",
}


@functools.cache
def _environment() -> Environment:
    templates = environment(
        loader=PackageLoader("unilens.app"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.globals.update(
        lights=LIGHTS, dashes=DASHES, width=_WIDTH, height=_HEIGHT, title_of=title_of
    )
    templates.filters.update(percent=percent, signed=signed, title_of=title_of)
    return templates


def html_of(template: str, **values: Any) -> str:
    """Return a template with values, escaped, in it."""
    return _environment().get_template(template).render(**values)


def predictions_html(predictions: Predictions, photograph: str) -> str:
    """Return the most probable classes as bars, with a description of the photograph."""
    return html_of("predictions.html", predictions=predictions, photograph=photograph)


def maps_html(explanation: Explanation) -> str:
    """Return the maps side by side."""
    attributions = explanation.attributions
    complete = [attribution for attribution in attributions.values() if attribution.complete]
    common = _common_scale(complete)
    return html_of(
        "maps.html",
        cards=[_card(explanation, name, attributions[name], common) for name in attributions],
        label=explanation.label,
        target=explanation.target,
        photograph=photograph_uri(explanation.pixels),
        left_out=explanation.left_out,
        common=common if len(complete) > 1 else None,
    )


def _card(
    explanation: Explanation, name: str, attribution: Attribution, common: float
) -> dict[str, Any]:
    values, baseline = attribution.values[0], attribution.baseline
    scale, own_scale = _scale(attribution, common)
    verdict, *warnings = map_lines(attribution)
    card = {
        "name": name,
        "title": title_of(name),
        "card": methods[str(attribution.provenance["method"])].card,
        "scale": scale,
        "own_scale": own_scale,
        "verdict": verdict,
        "warnings": warnings,
        "lights": trust_report(attribution).lights,
        "seconds": attribution.provenance["seconds"],
        "heatmap": heatmap_uri(values, scale),
        "overlay": overlay_uri(values),
        "positive": heatmap_uri(values, scale, 1),
        "negative": heatmap_uri(values, scale, -1),
        "strongest": strongest_region(values),
        "score": float(attribution.score[0]),
        "baseline_score": None,
        "baseline": None,
    }
    if attribution.baseline_score is not None:
        card["baseline_score"] = float(attribution.baseline_score[0])
    if baseline is not None:
        card["baseline"] = photograph_uri(baseline[0])
        card["distance"] = float((baseline[0] - explanation.pixels).double().norm())
    return card


def _scale(attribution: Attribution, common: float) -> tuple[float, str]:
    """Return the value of full colour, and why it is not the common one, if it is not.

    A map that does not add up to the score, or would be white on the common scale, has its own.
    """
    own = colour_scale(flatten(attribution.values[0], "signed"))
    if not attribution.complete:
        return own, "its own colour scale: it does not add up to the score"
    if 0 < own < common / MAX_SCALE_RATIO:
        return own, f"its own colour scale, {common / own:.0f} times as fine as the common one"
    return common, ""


def strongest_region(values: Tensor) -> str:
    """Return in words where a map is strongest, for people who cannot see it."""
    strength = values.detach().cpu().double().nan_to_num().abs().sum(0)
    if not float(strength.sum()):
        return "nowhere: it is zero throughout"
    row, column = (
        max(range(3), key=[float(third.sum()) for third in thirds].__getitem__)
        for thirds in (strength.tensor_split(3, 0), strength.tensor_split(3, 1))
    )
    rows, columns = ("upper", "middle", "lower"), ("left", "centre", "right")
    return f"in the {rows[row]} rows and the {columns[column]} columns"


def path_html(explanation: Explanation, paths: Mapping[str, PathSteps]) -> str:
    """Return the paths: what the model sees, and the map so far, for every stop of the slider."""
    attributions = {name: explanation.attributions[name] for name in paths}
    common = _common_scale(
        attribution for attribution in attributions.values() if attribution.complete
    )
    methods = []
    for name, steps in paths.items():
        scale, _ = _scale(attributions[name], common)
        methods.append(
            {
                "name": name,
                "number": list(explanation.attributions).index(name),
                "summary": _path_summary(steps),
                "points": _uris(steps.points, photograph_uri),
                "sums": _uris(steps.sums, functools.partial(heatmap_uri, scale=scale)),
                "line": _polyline(steps.fractions, steps.confidences),
                "positions": steps.positions,
                "confidences": steps.shown,
            }
        )
    return html_of(
        "path.html",
        methods=methods,
        without=[title_of(name) for name in explanation.attributions if name not in paths],
        max_steps=MAX_STEPS,
        last=len(STOPS) - 1,
        label=explanation.label,
    )


def _uris(images: Sequence[Tensor], draw: Callable[[Tensor], str]) -> list[str]:
    """Return the URI of each image; an image that follows itself is drawn once."""
    uris: list[str] = []
    for number, image in enumerate(images):
        repeated = number > 0 and image is images[number - 1]
        uris.append(uris[-1] if repeated else draw(image))
    return uris


def _path_summary(steps: PathSteps) -> str:
    """Return what a path says about its map, in a sentence."""
    position, peak = steps.peak
    first, end = steps.confidences[0], steps.confidences[-1]
    drops = float(-numpy.diff(steps.confidences).clip(max=0).sum())
    ends = f"from {percent(first)} to {percent(end)}"
    if first > end + _NOTABLE:
        return (
            f"The confidence falls {ends}: the model is surer of the class at the baseline than at "
            "the photograph."
        )
    if peak > end + _NOTABLE:
        return (
            f"The confidence peaks at {percent(peak)} after {100 * position:.0f} % of the path and "
            f"then falls to {percent(end)}: what the map gathers up to the peak and gives back "
            "after it explains the path, not the photograph."
        )
    if drops < _NOTABLE and end - first < _NOTABLE:
        return f"The confidence hardly changes, {ends}: there is little of it to explain."
    if drops < _NOTABLE:
        back = f"falls back by {percent(drops)} in all" if drops else "never falls back"
        return f"The confidence climbs {ends}, and {back} on the way."
    return (
        f"The confidence goes {ends}, and gives back {percent(drops)} in all on the way: part of "
        "the map explains that detour."
    )


def _polyline(fractions: Iterable[float], values: Iterable[float]) -> str:
    """Return a curve as the points of an SVG line; 1 is at the top, 0 at the bottom."""
    return " ".join(
        f"{_WIDTH * x:.1f},{_HEIGHT * (1 - min(max(y, 0.0), 1.0)):.1f}"
        for x, y in zip(fractions, values, strict=True)
    )


def trust_html(reports: Mapping[str, TrustReport]) -> str:
    """Return the maps compared by their lights, and the answers about each, folded."""
    return html_of("trust.html", reports=reports, names=list(reports), rows=compared(reports))


def checks_html(checks: Mapping[str, MapChecks]) -> str:
    """Return the slower checks: the curves beside those of a random map, and the answers."""
    charts = [
        {
            "title": title,
            "lines": [
                _chart_line(name, number, checks[name], metric)
                for number, name in enumerate(checks, start=-1)  # the first is the control
            ],
        }
        for metric, title in _CHARTS.items()
    ]
    methods = {name: result.answers for name, result in checks.items() if name != CONTROL}
    rows = [
        (column[0].question, [answer.light for answer in column])
        for column in zip(*methods.values(), strict=True)  # each map has the same checks
    ]
    return html_of("checks.html", charts=charts, methods=methods, names=list(methods), rows=rows)


def _chart_line(name: str, number: int, checks: MapChecks, metric: str) -> dict[str, Any]:
    measurement = checks.curves[metric]
    fractions, scores = (measurement.details[key][0].tolist() for key in ("fractions", "curve"))
    area = float(measurement.values[0])
    return {
        "name": name,
        "number": number,
        "area": area,
        "line": _polyline(fractions, scores),
    }


def _common_scale(attributions: Iterable[Attribution]) -> float:
    """Return the value of full colour for maps in units of the score."""
    scales = (
        colour_scale(flatten(attribution.values[0], "signed")) for attribution in attributions
    )
    return max(scales, default=1.0)


def photograph_uri(image: Tensor) -> str:
    """Return an image `(3, H, W)`, clipped to [0, 1]."""
    return picture_uri(pixels(image))


def heatmap_uri(values: Tensor, scale: float, sign: int = 0) -> str:
    """Return a map `(3, H, W)` in colours: orange for the class, purple against it.

    Args:
        values: the map.
        scale: the value of full colour.
        sign: 1 for values for the class only, -1 for those against it, 0 for both.
    """
    flat = flatten(values, "signed")
    if sign:
        flat = sign * (sign * flat).clip(0)
    return picture_uri(coloured(flat, scale))


def overlay_uri(values: Tensor) -> str:
    """Return a map that is drawn over a photograph, as `output.colours.overlay` draws it."""
    return picture_uri(overlay_layer(values))


def picture_uri(values: Array) -> str:
    """Return colours `(H, W, 3)` or, with opacity, `(H, W, 4)`, as a small file."""
    return data_uri(values, "webp", quality=82, method=2)

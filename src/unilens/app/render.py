"""What the page shows, as HTML: every text escaped, every picture with its text alternative."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from ..attribution import Attribution
from ..output.viz import colour_scale, flatten
from .checks import CONTROL, Checked
from .journey import Journey, places
from .pictures import common_scale, heatmap_uri, layer_uri, photograph_uri
from .studio import Explained, Prediction
from .trust import LIGHTS, Finding

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#7f7f7f")
"""Of curves, by method: Okabe and Ito 2008, safe for the colour-blind; the last for the control."""
DASHES = ("", "7 3", "2 3", "9 3 2 3", "1 3")
WHITE = 4
"""How many times weaker than the strongest a map may be before it can hardly be seen beside it."""
_WIDTH, _HEIGHT = 320, 180


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("unilens.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(lights=LIGHTS, colours=COLOURS, dashes=DASHES)
    return environment


def _html(template: str, **values: Any) -> str:
    return _environment().get_template(template).render(**values)


def predictions_html(predictions: Sequence[Prediction], photograph: str) -> str:
    """Return the most probable classes as bars."""
    return _html("predictions.html", predictions=predictions, photograph=photograph)


def maps_html(explained: Explained) -> str:
    """Return the maps side by side."""
    complete = {n: a for n, a in explained.attributions.items() if a.complete}
    common = common_scale(complete.values())
    cards = [
        _card(explained, name, attribution, common if name in complete else None)
        for name, attribution in explained.attributions.items()
    ]
    return _html(
        "maps.html",
        cards=cards,
        label=explained.label,
        target=explained.target,
        photograph=photograph_uri(explained.pixels),
        left_out=explained.left_out,
        common=common if len(complete) > 1 else None,
    )


def _card(
    explained: Explained, name: str, attribution: Attribution, common: float | None
) -> dict[str, Any]:
    values = attribution.values[0]
    scale, own_scale = _scale(attribution, common)
    baseline = attribution.baseline
    score = attribution.baseline_score
    return {
        "name": name,
        "scale": scale,
        "own_scale": own_scale,
        "warnings": attribution.warnings[0],
        "seconds": attribution.provenance["seconds"],
        "heatmap": heatmap_uri(values, scale),
        "layer": layer_uri(values, scale),
        "positive": heatmap_uri(values, scale, 1),
        "negative": heatmap_uri(values, scale, -1),
        "baseline": None if baseline is None else photograph_uri(baseline[0]),
        "distance": None if baseline is None else _distance(explained.pixels, baseline[0]),
        "score": float(attribution.score[0]),
        "baseline_score": None if score is None else float(score[0]),
        "where": _where(values),
    }


def _scale(attribution: Attribution, common: float | None) -> tuple[float, str]:
    """Return the value that gets the full colour, and why it is not the common one, if it is not.

    A map that would be white on the common scale gets its own, and says how much finer that is.
    """
    own = colour_scale(flatten(attribution.values[0], "signed"))
    if common is None:
        return own, "its own colour scale: it does not add up to the score"
    if 0 < own < common / WHITE:
        return own, f"its own colour scale, {common / own:.0f} times as fine as the common one"
    return common, ""


def _distance(pixels: Tensor, baseline: Tensor) -> float:
    return float((baseline - pixels).double().norm())


def _where(values: Tensor) -> str:
    """Return in words where a map is strongest, for people who cannot see it."""
    strength = values.detach().cpu().double().nan_to_num().abs().sum(0)
    if not float(strength.sum()):
        return "nowhere: it is zero throughout"
    rows, columns = (
        [float(part.sum()) for part in strength.tensor_split(3, dim)] for dim in (0, 1)
    )
    row = ("upper", "middle", "lower")[rows.index(max(rows))]
    column = ("left", "centre", "right")[columns.index(max(columns))]
    return f"in the {row} rows and the {column} columns"


def journey_html(explained: Explained, journeys: Mapping[str, Journey]) -> str:
    """Return the paths: for every place of the slider what the model sees and the map so far."""
    if not journeys:
        return _html("no_journey.html")
    methods = []
    complete = [explained.attributions[name] for name in journeys]
    common = common_scale(one for one in complete if one.complete)
    for number, (name, found) in enumerate(journeys.items()):
        attribution = explained.attributions[name]
        scale, _ = _scale(attribution, common if attribution.complete else None)
        methods.append(
            {
                "name": name,
                "number": number,
                "told": _told(found),
                "points": _repeated(found.points, photograph_uri),
                "sums": _repeated(found.sums, lambda one, scale=scale: heatmap_uri(one, scale)),
                "line": _line(found.fractions, found.confidences),
                "here": [_at(found, place) for place in places()],
            }
        )
    return _html(
        "journey.html",
        methods=methods,
        places=places(),
        label=explained.label,
        width=_WIDTH,
        height=_HEIGHT,
    )


def _repeated(images: Sequence[Tensor], draw: Any) -> list[str]:
    """Return the picture of each image; the same image is drawn once."""
    uris: list[str] = []
    for number, image in enumerate(images):
        same = number > 0 and image is images[number - 1]
        uris.append(uris[-1] if same else draw(image))
    return uris


def _at(found: Journey, place: float) -> float:
    """Return the confidence at a place, between the two nearest that were taken."""
    for (a, low), (b, high) in zip(
        zip(found.fractions, found.confidences, strict=True),
        list(zip(found.fractions, found.confidences, strict=True))[1:],
        strict=False,
    ):
        if a <= place <= b:
            return low + (high - low) * (place - a) / (b - a) if b > a else high
    return found.confidences[-1]


def _told(found: Journey) -> str:
    """Return what a reader should see in a path."""
    where, peak = found.peak
    end = found.confidences[-1]
    if where < 1 and peak > end + 0.02:
        return (
            f"The confidence peaks at {peak:.0%} after {where:.0%} of the path and then falls to "
            f"{end:.0%}: what the map gathers up to the peak and gives back after it explains the "
            "way, not the photograph."
        )
    drops = sum(
        max(0.0, before - after)
        for before, after in zip(found.confidences, found.confidences[1:], strict=False)
    )
    if drops < 0.02:
        return (
            f"The confidence climbs from {found.confidences[0]:.0%} to {end:.0%} and never turns "
            "back: every part of the map stands for evidence that was gained."
        )
    return (
        f"The confidence goes from {found.confidences[0]:.0%} to {end:.0%}, and gives back "
        f"{drops:.0%} on the way: that much of the map explains detours."
    )


def _line(fractions: Iterable[float], values: Iterable[float]) -> str:
    """Return a curve as the points of an SVG line; one is the top, zero the bottom."""
    return " ".join(
        f"{_WIDTH * x:.1f},{_HEIGHT * (1 - min(max(y, 0.0), 1.0)):.1f}"
        for x, y in zip(fractions, values, strict=True)
    )


def trust_html(found: Mapping[str, list[Finding]]) -> str:
    """Return what is known about every map, a traffic light each."""
    return _html("trust.html", methods=found)


def checks_html(found: Mapping[str, Checked]) -> str:
    """Return the slower checks: curves beside those of a random map, and a traffic light each."""
    charts = []
    for metric, title in (
        ("insertion_auc", "Insertion: what counts most comes first"),
        ("deletion_auc", "Deletion: what counts most goes first"),
    ):
        lines = [
            {
                "name": name,
                "number": 4 if name == CONTROL else number - 1,
                "area": one.curves[metric].area,
                "line": _line(one.curves[metric].fractions, one.curves[metric].scores),
            }
            for number, (name, one) in enumerate(found.items())
        ]
        charts.append({"title": title, "lines": lines})
    return _html(
        "checks.html",
        charts=charts,
        width=_WIDTH,
        height=_HEIGHT,
        methods={name: one.findings for name, one in found.items() if name != CONTROL},
    )

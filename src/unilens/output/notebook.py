"""An attribution as a notebook shows it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..attribution import Attribution
from ..diagnostics import WARNINGS
from .views import View, display_axes

MOST_INPUTS = 4
_MOST_VALUES = 8

_TEMPLATE = """
<div style="font-family:sans-serif">
<p><b>{{ method }}</b>: {{ count }} input{{ "s" if count != 1 }} of shape {{ shape }}{{ note }}</p>
<div style="display:flex;flex-wrap:wrap;gap:1em">
{% for one in inputs %}
<div style="border:1px solid #888;border-radius:6px;padding:.6em;max-width:32em">
<b>class {{ one.target }}</b>{% for fact in one.facts %}, {{ fact }}{% endfor %}
{% if one.pictures %}<div style="display:flex;gap:.5em;margin-top:.4em">
{% for title, uri, text in one.pictures %}<figure style="margin:0"><img src="{{ uri }}" \
alt="{{ text }}" style="max-width:224px;width:100%;image-rendering:auto">\
<figcaption style="font-size:85%">{{ title }}</figcaption></figure>{% endfor %}
</div>{% endif %}
{% if one.strongest %}<table><tr><th>place</th><th>value</th></tr>
{% for place, value in one.strongest %}<tr><td>{{ place }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>{% endif %}
{% for name, meaning in one.warnings %}<p style="margin:.3em 0;color:#b03000">✖ <b>{{ name }}</b>: \
{{ meaning }}</p>{% endfor %}
</div>
{% endfor %}
</div>
</div>
"""


def attribution_html(attribution: Attribution) -> str:
    """Return an attribution as HTML: for images heatmap and baseline, else the strongest values.

    Args:
        attribution: of any inputs; the first four are shown.
    """
    from jinja2 import Environment

    count = len(attribution.values)
    template = Environment(autoescape=True).from_string(_TEMPLATE)
    return template.render(
        method=attribution.provenance.get("method", "attribution"),
        count=count,
        shape=tuple(attribution.values.shape[1:]),
        note="" if count <= MOST_INPUTS else f"; the first {MOST_INPUTS} are shown",
        inputs=[_one(attribution, index) for index in range(min(count, MOST_INPUTS))],
    )


def _one(attribution: Attribution, index: int) -> dict[str, Any]:
    values = attribution.values[index].detach()
    facts = [f"score {float(attribution.score[index]):.4g}"]
    if attribution.baseline_score is not None:
        facts.append(f"{float(attribution.baseline_score[index]):.4g} at the baseline")
    gap = float(attribution.completeness_gap[index])
    if gap == gap:
        facts.append(f"completeness gap {gap:+.2g}")
    picture = _has_picture(attribution, values)
    return {
        "target": int(attribution.target[index]),
        "facts": facts,
        "pictures": _pictures(attribution, index) if picture else [],
        "strongest": [] if picture else _strongest(values),
        "warnings": [(name, WARNINGS[name].meaning) for name in attribution.warnings[index]],
    }


def _has_picture(attribution: Attribution, values: Tensor) -> bool:
    """Whether values `(*S)` are those of an image, a volume or a clip, as far as it is known."""
    axes = display_axes(values, [attribution], "auto")
    first = axes.to_first(values, 0) if values.ndim > 1 else values
    known = first.shape[0] in (1, 3) or axes.channels == "none"
    return known and (first.ndim == 3 or (first.ndim == 4 and "channels" in attribution.provenance))


def _pictures(attribution: Attribution, index: int) -> list[tuple[str, str, str]]:
    from . import viz

    values = attribution.values[index]
    view = View(display_axes(values, [attribution], "auto"))
    shown = [("heatmap", viz.heatmap(view.values(values)), "what spoke for the class")]
    if attribution.baseline is not None:
        baseline = viz.pixels(view.image(attribution.baseline[index]))
        shown.append(("baseline", baseline, "what the input was compared with"))
    return [(title, viz.data_uri(array), f"{title}: {text}") for title, array, text in shown]


def _strongest(values: Tensor) -> list[tuple[str, str]]:
    """Return the values that are largest in magnitude, with their places."""
    flat = values.flatten()
    order = flat.abs().nan_to_num().argsort(descending=True, stable=True)[:_MOST_VALUES].tolist()
    sizes = values.shape
    found = []
    for number in order:
        place, rest = [], number
        for size in reversed(sizes):
            rest, here = divmod(rest, size)
            place.append(here)
        found.append((", ".join(map(str, reversed(place))), f"{float(flat[number]):+.4g}"))
    return found


Attribution._repr_html_ = attribution_html  # type: ignore[attr-defined]  # notebooks ask for it

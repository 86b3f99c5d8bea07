"""How a notebook shows an attribution."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..attribution import Attribution
from .levels import lines
from .views import View, display_axes

MAX_INPUTS = 4
_N_STRONGEST = 8

_TEMPLATE = """
<div style="font-family:sans-serif">
<p><b>{{ method }}</b>: {{ count }} input{{ "s" if count != 1 }} of shape {{ shape }}{{ note }}</p>
<div style="display:flex;flex-wrap:wrap;gap:1em">
{% for input in inputs %}
<div style="border:1px solid #888;border-radius:6px;padding:.6em;max-width:32em">
<b>class {{ input.target }}</b>{% for fact in input.facts %}, {{ fact }}{% endfor %}
{% if input.images %}<div style="display:flex;gap:.5em;margin-top:.4em">
{% for title, uri, text in input.images %}<figure style="margin:0"><img src="{{ uri }}" \
alt="{{ text }}" style="max-width:224px;width:100%;image-rendering:auto">\
<figcaption style="font-size:85%">{{ title }}</figcaption></figure>{% endfor %}
</div>{% endif %}
{% if input.strongest %}<table><tr><th>index</th><th>value</th></tr>
{% for index, value in input.strongest %}<tr><td>{{ index }}</td><td>{{ value }}</td></tr>
{% endfor %}</table>{% endif %}
{% for line in input.lines %}\
<p style="margin:.3em 0;color:{{ line.style.colour }}">{{ line }}</p>{% endfor %}
</div>
{% endfor %}
</div>
</div>
"""


def attribution_html(attribution: Attribution) -> str:
    """Return the first four inputs of an attribution as HTML.

    Images have their heatmap and baseline, other inputs their strongest values.
    """
    from .html import environment

    count = len(attribution.values)
    template = environment().from_string(_TEMPLATE)
    return template.render(
        method=attribution.provenance.get("method", "attribution"),
        count=count,
        shape=tuple(attribution.values.shape[1:]),
        note="" if count <= MAX_INPUTS else f"; the first {MAX_INPUTS} are shown",
        inputs=[_input_summary(attribution, index) for index in range(min(count, MAX_INPUTS))],
    )


def _input_summary(attribution: Attribution, index: int) -> dict[str, Any]:
    values = attribution.values[index].detach()
    facts = [f"score {attribution.score[index].item():.4g}"]
    if attribution.baseline_score is not None:
        facts.append(f"{attribution.baseline_score[index].item():.4g} at the baseline")
    gap = attribution.completeness_gap[index].item()
    if gap == gap:
        facts.append(f"completeness gap {gap:+.2g}")
    if "relevance_gap" in attribution.diagnostics:
        facts.append(f"gap of the relevance {attribution.diagnostics['relevance_gap'][index]:+.2g}")
    is_image = _is_image(attribution, values)
    return {
        "target": int(attribution.target[index]),
        "facts": facts,
        "images": _images(attribution, index) if is_image else [],
        "strongest": [] if is_image else _strongest(values),
        "lines": lines(attribution, index),
    }


def _is_image(attribution: Attribution, values: Tensor) -> bool:
    """Whether values `(*S)` are known to be those of an image, a volume or a clip."""
    axes = display_axes(values, [attribution], "auto")
    first = axes.to_first(values, 0) if values.ndim > 1 else values
    known = first.shape[0] in (1, 3) or axes.channels == "none"
    return known and (first.ndim == 3 or (first.ndim == 4 and "channels" in attribution.provenance))


def _images(attribution: Attribution, index: int) -> list[tuple[str, str, str]]:
    """Return the heatmap and the baseline of an image, or of the strongest slice or frame."""
    from . import viz

    baseline = None if attribution.baseline is None else attribution.baseline[index]
    view = View.of(attribution.values[index] if baseline is None else baseline, [attribution])
    values, plane = view.values(attribution.values[index]), None
    if values.ndim == 4:
        plane = max(view.planes(values), key=lambda plane: float(plane.of(values).abs().sum()))
        values = plane.of(values)
    place = "" if plane is None else f", axis {plane.axis} at {plane.position}"
    images = [(f"heatmap{place}", viz.heatmap(values), "evidence for the class")]
    if baseline is not None:
        first = view.values(baseline)
        shown = viz.pixels(view.image(first if plane is None else plane.of(first)))
        images.append(("baseline", shown, "the input that the image is compared with"))
    return [(title, viz.data_uri(array), f"{title}: {text}") for title, array, text in images]


def _strongest(values: Tensor) -> list[tuple[str, str]]:
    """Return the values that are largest in magnitude, with their indices."""
    flat = values.flatten()
    order = flat.abs().nan_to_num().argsort(descending=True, stable=True)[:_N_STRONGEST]
    indices = torch.stack(torch.unravel_index(order, values.shape), -1).tolist()
    return [
        (", ".join(map(str, index)), f"{float(value):+.4g}")
        for index, value in zip(indices, flat[order], strict=True)
    ]


Attribution._repr_html_ = attribution_html  # type: ignore[attr-defined]  # notebooks ask for it

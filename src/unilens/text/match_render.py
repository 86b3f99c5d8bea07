"""A match as HTML: the image with its map beside the coloured texts."""

from __future__ import annotations

from ..output import viz
from ..output.levels import lines
from .matching import MatchAttribution
from .render import fragment

_TEMPLATE = """
<div style="font-family:sans-serif;background:#fff;color:#111;padding:.3em">
<p style="margin:0 0 .5em"><b>similarity {{ similarities[0] }}</b>\
{% if similarities[1:] %}, {{ similarities[1] }} with the other text: \
score {{ score }}{% endif %}</p>
<div style="display:flex;flex-wrap:wrap;gap:1em;align-items:flex-start">
<div style="max-width:464px"><div style="display:flex;flex-wrap:wrap;gap:1em">
{% for title, uri in images %}<figure style="margin:0;width:224px"><img src="{{ uri }}" \
alt="{{ title }}" style="width:100%"><figcaption style="font-size:85%">{{ title }}</figcaption>\
</figure>
{% endfor %}</div>
{% for line in lines %}<p style="margin:.3em 0;color:{{ line.style.colour }}">{{ line }}</p>
{% endfor %}</div>
<div style="flex:1 1 20em">{% for text in texts %}{{ text }}{% endfor %}</div>
</div>
{% for note in notes %}<p style="margin:.3em 0;color:#666">{{ note }}</p>
{% endfor %}</div>
"""


def match_html(match: MatchAttribution, by: str = "word") -> str:
    """Return a match as HTML; text from outside is escaped.

    Args:
        match: what `explain_match` returns.
        by: "word" or "token", the unit that is coloured.
    """
    from markupsafe import Markup

    from ..output.html import environment

    values = match.image.values[0]
    method = match.image.provenance.get("method", "attribution")
    goal = "the match" if match.other is None else "the first text"
    images = [
        ("what the model sees", viz.data_uri(viz.pixels(match.pixels[0]))),
        (
            f"{method}: orange for, purple against {goal}",
            viz.data_uri(viz.overlay(match.pixels[0], values)),
        ),
    ]
    labels = ("the text", "the other text")
    texts = [
        Markup(fragment(text, label, goal, by))  # noqa: S704 (escaped where it was made)
        for text, label in zip(match.texts, labels, strict=False)
    ]
    return (
        environment()
        .from_string(_TEMPLATE)
        .render(
            similarities=[f"{value:+.3f}" for value in match.similarities],
            score=f"{match.score:+.3f}",
            images=images,
            texts=texts,
            lines=lines(match.image),
            notes=match.notes,
        )
    )


MatchAttribution._repr_html_ = match_html  # type: ignore[attr-defined]  # notebooks ask for it

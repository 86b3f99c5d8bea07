"""A text coloured by its attribution, as HTML and for the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..output.levels import lines
from ..output.text import terminal_safe
from .attribution import TextAttribution
from .colours import css, terminal_style

if TYPE_CHECKING:
    from rich.text import Text

_STRONGEST = 5

_FRAGMENT = """
<div style="font-family:sans-serif;background:#fff;color:#111;border:1px solid #888;\
border-radius:6px;padding:.8em;max-width:48em;margin:.5em 0">
<p style="margin:0 0 .5em"><b>{{ method }}</b>: {{ label }}\
{% for fact in facts %}, {{ fact }}{% endfor %}</p>
<p style="margin:0;line-height:1.9;font-size:115%;white-space:pre-wrap;overflow-wrap:anywhere">\
{% for piece, value, colour in pieces %}{% if value is none %}{{ piece }}{% else %}\
<span style="background:{{ colour }};border-radius:3px" title="{{ value }}">{{ piece }}</span>\
{% endif %}{% endfor %}</p>
<p style="margin:.6em 0 0;font-size:85%;color:#111">\
<span style="background:{{ full_for }}">for</span> and \
<span style="background:{{ full_against }}">against</span> {{ goal }}, full colour {{ scale }}. \
Strongest: {% for word, value in strongest %}{{ ", " if not loop.first }}{{ word }} {{ value }}\
{% endfor %}</p>
{% for line in lines %}<p style="margin:.3em 0;color:{{ line.style.colour }}">\
{{ line }}</p>
{% endfor %}{% for note in notes %}<p style="margin:.3em 0;color:#666">{{ note }}</p>
{% endfor %}</div>
"""

_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>{{ title }}</title></head>
<body style="margin:1.5em">
{% for fragment in fragments %}{{ fragment }}
{% endfor %}</body>
</html>
"""


def html(explanation: TextAttribution, by: str = "word") -> str:
    """Return one explanation as HTML; text from outside is escaped."""
    label = f"{explanation.label} (class {int(explanation.attribution.target[0])})"
    return fragment(explanation, label, "the class", by)


def fragment(explanation: TextAttribution, label: str, goal: str, by: str = "word") -> str:
    """Return one explanation as HTML, under a label.

    Args:
        explanation: of a text.
        label: what is explained, after the method's name.
        goal: what the values speak for or against.
        by: "word" or "token".
    """
    from ..output.html import environment

    pieces = explanation.pieces(by)
    scale = _scale(pieces)
    attribution = explanation.attribution
    return (
        environment()
        .from_string(_FRAGMENT)
        .render(
            method=attribution.provenance.get("method", "attribution"),
            label=label,
            goal=goal,
            facts=_facts(explanation),
            pieces=[
                (piece, None if value is None else f"{value:+.3g}", css(value, scale))
                for piece, value in pieces
            ],
            full_for=css(scale, scale),
            full_against=css(-scale, scale),
            scale=f"{scale:.2g}",
            strongest=[(word, f"{value:+.2g}") for word, value in strongest(explanation)],
            lines=lines(attribution),
            notes=explanation.notes,
        )
    )


def page(explanations: Mapping[str, TextAttribution], title: str, by: str = "word") -> str:
    """Return an HTML page of one text's explanations, by name.

    Args:
        explanations: by name.
        title: of the page.
        by: "word" or "token".
    """
    named = (_named(explanation, name) for name, explanation in explanations.items())
    return document([html(explanation, by) for explanation in named], title)


def document(fragments: Sequence[str], title: str) -> str:
    """Return an HTML page of fragments, in which text from outside is escaped already."""
    from markupsafe import Markup

    from ..output.html import environment

    template = environment().from_string(_PAGE)
    safe = [Markup(fragment) for fragment in fragments]  # noqa: S704 (escaped where it was made)
    return template.render(title=title, fragments=safe)


def rich_text(explanation: TextAttribution, by: str = "word") -> Text:
    """Return one explanation for the terminal, without markup or control characters."""
    from rich.text import Text

    pieces = explanation.pieces(by)
    scale = _scale(pieces)
    shown = Text()
    for piece, value in pieces:
        shown.append(terminal_safe(piece), style=terminal_style(value, scale))
    return shown


def strongest(explanation: TextAttribution) -> list[tuple[str, float]]:
    """Return the words that contributed most, in either direction, the largest first."""
    both = zip(explanation.tokens.words, explanation.word_values.tolist(), strict=True)
    return sorted(both, key=lambda word: -abs(word[1]))[:_STRONGEST]


def _named(explanation: TextAttribution, name: str) -> TextAttribution:
    named = explanation.attribution.with_provenance(method=name)
    return dataclasses.replace(explanation, attribution=named)


def _facts(explanation: TextAttribution) -> list[str]:
    attribution = explanation.attribution
    facts = [f"score {float(attribution.score[0]):.3f}"]
    if attribution.baseline_score is not None:
        facts.append(f"{float(attribution.baseline_score[0]):.3f} at the baseline")
    gap = explanation.completeness_gap
    return [*facts, f"completeness gap {gap:+.2g}"] if gap == gap else facts


def _scale(pieces: Sequence[tuple[str, float | None]]) -> float:
    return max((abs(value) for _, value in pieces if value is not None), default=0.0)


# Notebooks and rich ask the attribution itself.
TextAttribution._repr_html_ = html  # type: ignore[attr-defined]
TextAttribution.__rich__ = rich_text  # type: ignore[attr-defined]

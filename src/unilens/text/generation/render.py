"""The matrix of a generated text as HTML: a heatmap, and the text, which a click colours."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ...output.levels import warning_lines
from ..colours import INK, css
from ..render import document
from ..tokens import Tokens
from .attribution import GenerationAttribution
from .heatmap import LEVELS, colour_class, heatmap
from .units import Span, UnitMatrix, scale_of

_MAX_CLICKS = 400_000
"""Values behind the text; beyond, each row has its strongest."""
_FINE = 999
"""Steps of the values behind the text."""
_STRONGEST = 5

_ROOT = "unilens-generation"
_STYLE = "".join(
    f".{_ROOT} {selector}{{{rule}}}"
    for selector, rule in {
        "p": "margin:0 0 .5em",
        "div": "overflow:auto;max-height:14em;line-height:1.9;white-space:pre-wrap;"
        "overflow-wrap:anywhere;max-width:48em;margin:0 0 .5em",
        "[data-column]": "border-radius:3px",
        "[data-row]": "cursor:pointer",
        "span[data-row]": "border-bottom:2px solid #888",
        "span[aria-pressed=true]": f"outline:2px solid {INK}",
        "[data-name]": "color:#555;font-size:75%;margin:0 .15em",
        "small": "color:#555;font-size:85%",
        "div.m": "max-height:36em;max-width:none;white-space:normal;line-height:1.2",
        "table": "border-collapse:separate;border-spacing:1px;font-size:85%;margin:0",
        "td": "background:#fff;padding:0 .3em;min-width:1em;height:1.5em;text-align:right;"
        "white-space:nowrap",
        "th": "background:#fff;position:sticky;font-weight:normal;z-index:1;white-space:nowrap",
        "thead th": "top:0;writing-mode:vertical-rl;transform:rotate(180deg);text-align:left;"
        "padding:.3em 0",
        "thead td": "left:0;top:0;position:sticky;z-index:2",
        "tbody th": "left:0;text-align:right;padding:0 .3em",
        "thead th.g": "background:#ddd",
        **{f".p{level}": f"background:{css(level, LEVELS)}" for level in range(1, LEVELS + 1)},
        **{f".n{level}": f"background:{css(-level, LEVELS)}" for level in range(1, LEVELS + 1)},
    }.items()
).replace(", ", ",")

_SCRIPT = f"""
for (const root of document.querySelectorAll(".{_ROOT}:not([data-ready])")) {{
  root.dataset.ready = "1";
  const rows = root.dataset.rows.split(";").map(row => row.split(",").map(Number));
  const scales = root.dataset.scales.split(",").map(Number);
  const choose = event => {{
    const chosen = event.target.closest("[data-row]");
    if (!chosen || (event.key && event.key !== "Enter" && event.key !== " ")) return;
    event.preventDefault();
    const row = Number(chosen.dataset.row);
    for (const piece of root.querySelectorAll("span[data-column]")) {{
      const value = rows[row][piece.dataset.column] || 0;
      const level = Math.round({LEVELS} * Math.abs(value) / {_FINE});
      piece.className = level ? (value > 0 ? "p" : "n") + level : "";
      piece.title = value ? (value * scales[row] / {_FINE}).toPrecision(2) : "";
    }}
    for (const piece of root.querySelectorAll("span[data-row]")) {{
      const same = Number(piece.dataset.row) === row;
      piece.setAttribute("aria-pressed", same);
      if (same) root.querySelector("output").textContent = piece.dataset.said;
    }}
  }};
  root.addEventListener("click", choose);
  root.addEventListener("keydown", choose);
}}
"""

_FRAGMENT = """
<div class="{{ root }}" data-rows="{{ rows }}" data-scales="{{ scales }}" \
style="font-family:sans-serif;background:#fff;color:{{ ink }};border:1px solid #888;\
border-radius:6px;padding:.8em;margin:.5em 0;max-height:none">
<style>{{ style }}</style>
<p><b>{{ method }}</b>: {{ facts }}</p>
{% for heading, pieces in texts %}<small>{{ heading }}</small>
<div>{% for piece in pieces %}\
{% if piece.column is none %}{{ piece.text }}{% else %}<span data-column="{{ piece.column }}"\
{% if piece.colour %} class="{{ piece.colour }}"{% endif %}\
{% if piece.is_name %} data-name=""{% endif %}\
{% if piece.row is not none %} data-row="{{ piece.row }}" role="button" tabindex="0" \
aria-pressed="{{ 'true' if piece.row == first else 'false' }}" data-said="{{ piece.said }}"\
{% endif %}>{{ piece.text }}</span>{% endif %}{% endfor %}</div>
{% endfor %}\
<p style="font-size:85%">Choose a generated unit, underlined: units before it are coloured by what \
it owes to them, <span class="p{{ levels }}">for</span> and \
<span class="n{{ levels }}">against</span> it. <output style="padding:0">{{ said }}</output></p>
{% if table %}<div class="m">{{ table }}</div>
{% endif %}<p style="font-size:85%;margin:.5em 0 0">{{ legend }}</p>
{% for note in notes %}<p style="margin:.3em 0;color:#555">{{ note }}</p>
{% endfor %}<script>{{ script }}</script>
</div>
"""


class Piece(NamedTuple):
    """A piece of the prompt or of the continuation.

    Attributes:
        text: of the piece, or the name of a token without text.
        column: of its unit; None where no token covers it.
        is_name: whether the text is a token's name.
        row: of its unit, where that is generated and explained.
        colour: a class of CSS.
        said: what is said of the row when it is chosen.
    """

    text: str
    column: int | None
    is_name: bool = False
    row: int | None = None
    colour: str = ""
    said: str = ""


def html(attribution: GenerationAttribution, by: str = "token", spans: Sequence[Span] = ()) -> str:
    """Return an attribution as HTML; text from outside is escaped, and nothing is loaded.

    Args:
        attribution: to show.
        by: "token", "word" or "sentence".
        spans: parts of the prompt; see `GenerationAttribution.by`.
    """
    from markupsafe import Markup

    from ...output.html import environment

    matrix = attribution.by(by, spans=spans)
    of_token, count = matrix.columns.of_token, len(attribution.prompt.names)
    rows, scales = _levels(matrix)
    first = next(iter(matrix.defined_rows), None)
    sayings = [saying(matrix, row) for row in range(len(matrix.rows.labels))]
    style, script, table = map(Markup, (_STYLE, _SCRIPT, heatmap(matrix)))  # escaped below
    return (
        environment()
        .from_string(_FRAGMENT)
        .render(
            root=_ROOT,
            ink=INK,
            levels=LEVELS,
            style=style,
            script=script,
            rows=";".join(rows),
            scales=",".join(f"{scale:.3g}" for scale in scales),
            method=attribution.provenance.get("method", "attribution"),
            facts=facts(attribution, by),
            texts={
                heading: list(_coloured(tokens, units, matrix, first, sayings))
                for heading, tokens, units in (
                    ("Prompt", attribution.prompt, of_token[:count]),
                    ("Generated", attribution.continuation, of_token[count:]),
                )
            }.items(),
            first=first,
            said="" if first is None else sayings[first],
            table=table,
            legend=_legend(matrix, bool(table)),
            notes=[*warning_lines_of(attribution), *attribution.notes],
        )
    )


def page(attributions: Mapping[str, GenerationAttribution], title: str, by: str = "token") -> str:
    """Return an HTML page of attributions of one generated text.

    Args:
        attributions: by name.
        title: of the page.
        by: "token", "word" or "sentence".
    """
    return document([html(_named(made, name), by) for name, made in attributions.items()], title)


def facts(attribution: GenerationAttribution, by: str) -> str:
    """Return the numbers of tokens, the unit and the largest gap, in words."""
    explained, count = int(attribution.explained.sum()), len(attribution.continuation.names)
    of = f"{count}" if explained == count else f"{explained} of {count}"
    tokens = f"generated token{'s' * (count > 1)}"
    text = f"{of} {tokens}, {len(attribution.prompt.names)} of the prompt, by {by}"
    gaps = attribution.completeness_gap
    largest = scale_of(gaps)
    return text if gaps.isnan().all() else f"{text}; completeness gaps up to {largest:.2g}"


def warning_lines_of(attribution: GenerationAttribution) -> list[str]:
    """Return the warnings of targets that were explained one by one, with the targets' names."""
    engine: Any = attribution.provenance.get("engine", {})
    targets: dict[str, list[str]] = {}
    for number, warnings in engine.get("warnings", {}).items():
        for name in warnings:
            targets.setdefault(name, []).append(attribution.continuation.names[int(number)])
    return [f"{line} ({', '.join(targets[line.name])})" for line in warning_lines(targets)]


def saying(matrix: UnitMatrix, row: int) -> str:
    """Return a row in words: its score, probability, gap and strongest sources."""
    against, gap = matrix.against[row], float(matrix.gap[row])
    name = f"“{matrix.rows.labels[row]}”" + (f" rather than “{against}”" if against else "")
    said = f"{name}: score {float(matrix.score[row]):+.3g}, "
    said += f"probability {float(matrix.probability[row]):.3g}"
    said += "" if math.isnan(gap) else f", gap {gap:+.2g}"
    values = matrix.values[row].nan_to_num()
    order = values.abs().argsort(descending=True, stable=True)[:_STRONGEST].tolist()
    strongest = [
        f"“{matrix.columns.labels[i]}” {float(values[i]):+.2g}" for i in order if values[i]
    ]
    return said + (f". Strongest: {', '.join(strongest)}" if strongest else "")


def _named(attribution: GenerationAttribution, name: str) -> GenerationAttribution:
    return dataclasses.replace(attribution, provenance={**attribution.provenance, "method": name})


def _levels(matrix: UnitMatrix) -> tuple[list[str], list[float]]:
    """Return each row as whole numbers up to `_FINE`, nothing for 0, and the rows' scales."""
    rows, scales = [], []
    most = max(_MAX_CLICKS // max(len(matrix.values), 1), 1)
    for line in matrix.values.cpu():
        scale = scale_of(line)
        kept = line.nan_to_num(0, 0, 0)
        if len(kept) > most:
            kept = kept.where(kept.abs() >= kept.abs().topk(most).values[-1], 0)
        whole = (_FINE * kept / (scale or 1)).round().int().tolist()
        rows.append(",".join(str(value or "") for value in whole).rstrip(","))
        scales.append(scale)
    return rows, scales


def _coloured(
    tokens: Tokens,
    of_token: Sequence[int],
    matrix: UnitMatrix,
    first: int | None,
    sayings: Sequence[str],
) -> Iterator[Piece]:
    """Yield a text in pieces, coloured by what row `first` owes to them."""
    values = [] if first is None else matrix.values[first].tolist()
    scale = 0.0 if first is None else scale_of(matrix.values[first])
    explained = set(matrix.defined_rows)
    for piece in _pieces(tokens, of_token):
        if piece.column is None or first is None:
            yield piece
            continue
        row = piece.column - matrix.n_prompt
        colour = colour_class(values[piece.column], scale)
        if row in explained:
            yield piece._replace(row=row, colour=colour, said=sayings[row])
        else:
            yield piece._replace(colour=colour)


def _pieces(tokens: Tokens, of_token: Sequence[int]) -> list[Piece]:
    """Return a text in pieces, each with its unit; joined, those with text are the text."""
    text, done = tokens.text, 0
    pieces: list[Piece] = []
    for name, number, (start, end) in zip(tokens.names, of_token, tokens.offsets, strict=True):
        lead, own = text[done:start], text[max(done, start) : end]
        if pieces and pieces[-1].column == number and not pieces[-1].is_name:
            pieces[-1] = Piece(pieces[-1].text + lead + own, number)
        else:
            blank = own[: len(own) - len(own.lstrip())] if own.strip() else ""
            pieces += [Piece(lead + blank, None)] if lead + blank else []
            pieces.append(Piece(own.removeprefix(blank) or name, number, is_name=not own))
        done = max(done, end)
    return [*pieces, Piece(text[done:], None)] if text[done:] else pieces


def _legend(matrix: UnitMatrix, has_table: bool) -> str:
    if not has_table:
        count = len(matrix.defined_rows) * len(matrix.defined_columns)
        return f"{count} cells are too many for a table: choose a larger unit for one."
    return (
        "Rows: what is generated. Columns: what comes before it, the prompt on white, generated "
        f"units on grey. Full colour {matrix.scale:.2g}; blank: it does not come before."
    )


GenerationAttribution._repr_html_ = html  # type: ignore[attr-defined]  # notebooks ask for it

"""The page of an audit: its content, for HTML and PDF alike, and the HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from torch import Tensor

from ...output.colours import Array, data_uri, overlay, pixels
from ...output.levels import LEVEL_STYLES, LevelStyle
from ...output.text import printable
from ..report.pages import render
from .findings import Findings, Suspect, findings_of
from .photographs import PlacedMark
from .run import TRUST_PHOTOGRAPHS, Audit
from .words import (
    METHOD_NAMES,
    TRUST_SENTENCES,
    Sentence,
    accuracy,
    caption,
    in_short,
    interval,
)

_SHOWN_MARKS = 4
_MISSING = "\u2013"
_FRAME = (1.0, 0.25, 0.0)
GOOD = LevelStyle("\u2714", "#1f6b3a", "green")
"""How good news are marked."""
STYLES = LEVEL_STYLES | {"": GOOD}


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture `(H, W, 3)` in [0, 1] with its caption."""

    colours: Array
    caption: str

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.colours, "webp", quality=82)


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures of one kind."""

    title: str
    text: str
    pictures: Sequence[Picture]


@dataclass(frozen=True, slots=True)
class Example:
    """Photographs with a mark, framed."""

    place: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Page:
    """All that is on the page.

    Attributes:
        title: heading.
        about: model and photographs in a sentence.
        accuracy: of the answers, in a sentence.
        short: the findings.
        examples: of the marks.
        groups: of pictures.
        regions: the rows of the table of places.
        trust: the rows of the table of methods.
        methods: listed.
        tested: photographs on which methods are tested.
        notes: what was left out.
    """

    title: str
    about: str
    accuracy: str
    short: Sequence[Sentence]
    examples: Sequence[Example]
    groups: Sequence[Group]
    regions: Sequence[dict[str, Any]]
    trust: Sequence[dict[str, str]]
    methods: str
    tested: int
    notes: Sequence[str]

    @classmethod
    def of(cls, audit: Audit, name: str) -> Page:
        """Return the page of an audit of the photographs of that name."""
        findings, classifier = findings_of(audit), audit.photographs.classifier
        weights = ", random weights" if audit.random_weights else ""
        return cls(
            title=f"What does the model look at? An audit of “{printable(name)}”",
            about=f"Model: {printable(classifier.name or 'unnamed')}{weights}. "
            f"Photographs: {len(audit.facts)}.",
            accuracy=accuracy(findings),
            short=in_short(audit, findings),
            examples=_examples(audit, findings),
            groups=_groups(audit, findings),
            regions=[_row(suspect) for suspect in findings.suspects],
            trust=[
                {
                    "name": METHOD_NAMES[trust.method],
                    "text": TRUST_SENTENCES[trust.level],
                    "checks": f"{trust.usable} of {trust.checked}" if trust.checked else _MISSING,
                }
                for trust in findings.trust
            ],
            methods=", ".join(METHOD_NAMES[trust.method] for trust in findings.trust),
            tested=min(TRUST_PHOTOGRAPHS, len(audit.facts)),
            notes=_notes(audit),
        )


def as_html(page: Page) -> str:
    """Return the page as one HTML file, with its pictures inside."""
    context = {name: getattr(page, name) for name in Page.__dataclass_fields__}
    symbols = {level: style.symbol for level, style in STYLES.items()}
    return render("audit.html", context | {"symbols": symbols})


def beside_overlay(view: Tensor, consensus: Tensor) -> Array:
    """Return a view `(C, H, W)` beside itself, orange where methods say that the model looked."""
    colours = pixels(view)
    gap = numpy.ones((colours.shape[0], max(1, colours.shape[1] // 40), 3))
    return numpy.concatenate([colours, gap, overlay(view, consensus[None])], 1)


def _groups(audit: Audit, findings: Findings) -> list[Group]:
    kinds = (
        ("Most sure of its answer", "", findings.surest),
        ("Least sure of its answer", "", findings.least_sure),
        (
            "Where the methods disagree most",
            "Do not draw conclusions from these pictures.",
            findings.disputed,
        ),
    )
    return [
        Group(title, text, [_picture(audit, number) for number in numbers])
        for title, text, numbers in kinds
        if numbers
    ]


def _picture(audit: Audit, number: int) -> Picture:
    view = audit.photographs.view(audit.indices[number])
    return Picture(beside_overlay(view, audit.consensus[number]), caption(audit, number))


def _examples(audit: Audit, findings: Findings) -> list[Example]:
    marks = {mark.name: mark for mark in audit.photographs.marks}
    named = [marks[suspect.name] for suspect in findings.named if suspect.is_mark]
    return [Example(mark.place, _framed(audit, mark)) for mark in named]


def _framed(audit: Audit, mark: PlacedMark) -> list[Picture]:
    """Return some photographs with a mark, a frame around it."""
    pictures = []
    numbers = {index: number for number, index in enumerate(audit.indices)}
    for index in [index for index in mark.boxes if index in numbers][:_SHOWN_MARKS]:
        if mark.of_view:
            colours = pixels(audit.photographs.view(index)).copy()
        else:
            image = audit.photographs.items[index].load()
            colours = numpy.asarray(image, dtype=float) / 255
        line = max(1, round(min(colours.shape[:2]) / 90))
        left, top, right, bottom = mark.boxes[index]
        height, width = colours.shape[:2]
        top, left = max(0, top - line), max(0, left - line)
        bottom, right = min(height, bottom + line), min(width, right + line)
        inside = slice(top + line, bottom - line), slice(left + line, right - line)
        kept = colours[inside].copy()
        colours[top:bottom, left:right] = _FRAME
        colours[inside] = kept
        pictures.append(Picture(colours, caption(audit, numbers[index])))
    return pictures


def _row(suspect: Suspect) -> dict[str, Any]:
    """Return the cells of a region."""
    fall, chance = suspect.fall, suspect.references.values()
    return {
        "place": f"the mark in {suspect.place}" if suspect.is_mark else suspect.place,
        "n": suspect.n,
        "share": interval(suspect.share) if suspect.seen else "not seen",
        "chance": f"{100 * max(chance):.1f} %" if chance else _MISSING,
        "fall": interval(fall).replace(" %", "") if fall is not None and fall.n else _MISSING,
        "suspicious": "yes" if suspect.looks or suspect.depends else "no",
    }


def _notes(audit: Audit) -> list[str]:
    notes = [
        f"Left out: {METHOD_NAMES.get(name, name)}: {reason}."
        for name, reason in audit.left_out.items()
    ]
    broken = audit.photographs.broken
    if broken:
        first = next(iter(broken))
        notes.append(
            f"{len(broken)} photographs could not be used, such as {printable(first)}: "
            f"{broken[first]}."
        )
    return notes

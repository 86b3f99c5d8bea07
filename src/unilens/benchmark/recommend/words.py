"""A recommendation in sentences, and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .purposes import COST, PURPOSES, RACED, STABILITY
from .verdicts import BEST, NONE, UNDECIDED, Verdict

WORDS = {purpose.name: purpose.words for purpose in PURPOSES}
HEADINGS = ("method", "s per map", "region", "ranking", "stability", "photos")
LEGEND = (
    "* recommended; = not significantly worse; - significantly worse; no mark: not tested. Region: "
    "insertion minus deletion; ranking: MuFidelity; stability: rank correlation under noise. "
    "Photos: that test the method, or on which it left the race."
)
_NAMED = 4
"""Methods that a sentence names; the table has all."""


def title(verdict: Verdict) -> str:
    """Return a verdict in a few words: `Find the region: gradcam`."""
    words = WORDS[verdict.purpose].capitalize()
    short = {NONE: "no method is to be trusted here", UNDECIDED: "not decided"}
    return f"{words}: {verdict.method or short[verdict.status]}"


def sentence(verdict: Verdict, unused: int) -> str:
    """Return how sure a verdict is, and which methods are worse.

    Args:
        verdict: on one purpose.
        unused: number of photographs that the race has not reached.
    """
    if verdict.status == NONE:
        return _why_none(verdict, unused)
    if verdict.status == UNDECIDED:
        return _why_undecided(verdict, unused)
    if verdict.purpose == COST.name:
        serves = " and ".join(WORDS[name] for name in verdict.serves)
        text = f"{seconds(verdict.seconds)} per map, and not significantly worse than the best to "
        return f"{text}{serves}."
    parts = [
        f"It beats the controls on {verdict.n} photographs ({_gain(verdict)}, p = "
        f"{_p(verdict.p)}), and is the best finalist in {_share(verdict)} of resamples of them."
    ]
    if verdict.level:
        parts.append(f"Not significantly worse: {named(verdict.level)}.")
    parts.append(f"Significantly worse: {named(verdict.worse) or 'no other finalist'}.")
    if verdict.behind:
        parts.append(f"{len(verdict.behind)} others left the race early, behind in the mean.")
    return " ".join(parts)


def _why_none(verdict: Verdict, unused: int) -> str:
    if verdict.nothing:
        return (
            "There is nothing to explain: blurred altogether, the photographs lose "
            f"{verdict.evidence:.3f} of the model's confidence on average."
        )
    if verdict.purpose == COST.name:
        return "No method beats the controls, so that none is worth its cost."
    return (
        f"The best, {verdict.leading}, is not significantly better than maps that ignore the "
        f"model, random and edges ({_gain(verdict)}, p = {_p(verdict.p)}, "
        f"{verdict.n} photographs)."
        + (_remedy(unused) if verdict.gain and verdict.gain[0] > 0 else "")
    )


def _why_undecided(verdict: Verdict, unused: int) -> str:
    if verdict.purpose == COST.name:
        return "That needs a method which is known to beat the controls."
    if verdict.n == 0:
        if verdict.purpose == STABILITY.name:
            return "No method that beats the controls was measured in the time."
        return "The time was too short to compare methods on a single photograph."
    text = (
        f"{verdict.n} photographs are too few: with so many methods a test against the controls "
        f"takes {verdict.needed}."
    )
    if verdict.n >= verdict.needed:
        text = "There are too few values for a test."
    leads = f" {verdict.leading} is ahead so far." if verdict.leading else ""
    return text + leads + _remedy(unused)


def _remedy(unused: int) -> str:
    return " More minutes may decide it." if unused else " More photographs may decide it."


def _gain(verdict: Verdict) -> str:
    if verdict.gain is None:
        return "no interval"
    mean, low, high = verdict.gain
    return f"{mean:+.2f} over {verdict.control}, 95 % interval {low:+.2f} to {high:+.2f}"


def _p(p: float | None) -> str:
    if p is None:
        return "unknown"
    return f"{p:.1e}" if p < 0.001 else f"{p:.3f}"


def _share(verdict: Verdict) -> str:
    return f"{100 * (verdict.probability or 0.0):.0f} %"


def seconds(value: float | None) -> str:
    """Return seconds in words."""
    return "unknown" if value is None else f"{value:.2g} s"


def named(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - _NAMED
    listed = ", ".join(names[:_NAMED])
    return listed if more <= 0 else f"{listed} and {more} more"


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text, in the order of `HEADINGS`."""
    values = [
        "-" if row[p.name] is None else f"{row[p.name]:.2f}{_MARKS[row[p.name + '_standing']]}"
        for p in (*RACED, STABILITY)
    ]
    time = "-" if row["seconds"] is None else f"{row['seconds']:.2f}"
    return [row["method"], time, *values, str(row["photographs"])]


_MARKS = {BEST: "*", "level": "=", "worse": "-", "": " "}

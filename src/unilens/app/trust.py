"""Can I trust this? The diagnostics of a map as questions, with a traffic light each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ..attribution import Attribution
from ..diagnostics import WARNINGS

LIGHTS = {
    "good": ("●", "good"),
    "fair": ("▲", "look closer"),
    "poor": ("✖", "do not rely on it"),
    "unknown": ("○", "not measured"),
}
"""Symbol and text of each light, so that it does not depend on its colour."""


@dataclass(frozen=True)
class Verdict:
    """The answer to one question about a map.

    Attributes:
        question: in plain words.
        light: one of `LIGHTS`.
        answer: in plain words, with the number.
        warning: name of the warning behind a red light, if there is one.
    """

    question: str
    light: str
    answer: str
    warning: str = ""


@dataclass(frozen=True)
class _Question:
    """A question that a diagnostic answers.

    Attributes:
        text: the question.
        diagnostic: name of the diagnostic.
        answer: format of the answer, with `value`, the score's `change` and their ratio `relative`.
        warning: name of the warning that makes the light red, if there is one.
        below: a value below it deserves a closer look without a warning.
        above: a ratio above it deserves a closer look without a warning.
        in_score: whether the value is in units of the score; otherwise the ratio is the value.
    """

    text: str
    diagnostic: str
    answer: str
    warning: str = ""
    below: float = -math.inf
    above: float = math.inf
    in_score: bool = False


_QUESTIONS = (
    _Question(
        "Does the map add up?",
        "completeness_gap",
        "The completeness gap is {value:+z.4f}, {relative:.1%} of the score's change.",
        "completeness_gap",
        above=0.01,
        in_score=True,
    ),
    _Question(
        "Does the confidence climb all the way?",
        "monotonicity",
        "Position on the path and confidence have a rank correlation of {value:.2f}.",
        "non_monotonic_path",
        below=0.97,
    ),
    _Question(
        "Does the baseline hide what the model saw?",
        "confidence_change",
        "The confidence at the baseline differs from that at the photograph by {value:+.0%}.",
        "informative_baseline",
        above=-0.5,
    ),
    _Question(
        "Is the whole path used?",
        "flat_fraction",
        "The score hardly moves on {value:.0%} of the path.",
        "saturation",
        above=0.5,
    ),
    _Question(
        "Are the steps small enough for the path's bends?",
        "riemann_error_bound",
        "A plain sum of as many steps could be off by {value:.2g}; the score changes by "
        "{change:.2g}.",
        "high_path_curvature",
        above=0.5,
        in_score=True,
    ),
    _Question(
        "Did the search for the baseline converge?",
        "matching_loss_fall",
        "The matching loss fell by {value:.2g} nats.",
        "matching_loss_did_not_fall",
    ),
    _Question(
        "Does the map stay with more steps?",
        "stability_15_30",
        "Maps of 15 and of 30 steps have a rank correlation of {value:.2f}.",
        below=0.95,
    ),
    _Question(
        "Does one step do as well?",
        "stability_1_30",
        "Maps of 1 and of 30 steps have a rank correlation of {value:.2f}: the lower, the more the "
        "path bends.",
        below=0.5,
    ),
)
_POOR_STABILITY = 0.8
_NO_PATH = Verdict(
    "Compared with what?",
    "unknown",
    "This method has no path from a baseline, so most of these questions do not apply. The slower "
    "checks below ask others.",
)


def verdicts(attribution: Attribution, index: int = 0) -> list[Verdict]:
    """Return the answers that the diagnostics of one map give, the most basic question first."""
    diagnostics = {name: float(values[index]) for name, values in attribution.diagnostics.items()}
    warned = attribution.warnings[index]
    answers = [
        _verdict(question, diagnostics, warned)
        for question in _QUESTIONS
        if question.diagnostic in diagnostics
    ]
    asked = {question.warning for question in _QUESTIONS}
    answers += [
        Verdict(name.replace("_", " "), "poor", WARNINGS[name].meaning, name)
        for name in warned
        if name not in asked
    ]
    return answers if attribution.trace is not None else [*answers, _NO_PATH]


def _verdict(question: _Question, diagnostics: Mapping[str, float], warned: list[str]) -> Verdict:
    value, change = diagnostics[question.diagnostic], abs(diagnostics.get("score_change", 0.0))
    relative = abs(value) / (change or 1.0) if question.in_score else value
    undefined = value != value
    answer = question.answer.format(value=value, change=change, relative=relative)
    stability = diagnostics.get("stability_15_30", 0.0)
    light = "good"
    if question.warning in warned:  # some warnings are of undefined values, too
        bound = question.diagnostic == "riemann_error_bound"  # of the worst case
        light = "fair" if bound and stability >= _POOR_STABILITY else "poor"
    elif undefined:
        light = "unknown"
    elif question.diagnostic == "stability_15_30" and value < _POOR_STABILITY:
        light = "poor"
    elif value < question.below or relative > question.above:
        light = "fair"
    return Verdict(
        question.text,
        light,
        "It is undefined for this photograph." if undefined else answer,
        question.warning if question.warning in warned else "",
    )

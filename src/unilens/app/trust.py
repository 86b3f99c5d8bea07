"""Can I trust this? The diagnostics of a map as questions, each with the level of its warning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..attribution import Attribution
from ..diagnostics import WARNINGS
from ..output.levels import LEVEL_STYLES, Line, lines

LIGHTS = {
    "good": ("●", "good"),
    **{level: (style.symbol, level) for level, style in LEVEL_STYLES.items()},
    "unknown": ("?", "not measured"),
}
"""Symbol and text of each light, so that it does not depend on its colour."""
TOPICS = {
    "sum": "Does the map add up to the score?",
    "steps": "Are there enough steps?",
    "path": "Does the path lead straight to the photograph?",
    "baseline": "Does the baseline hide what the model saw?",
    "other": "Is anything else in doubt?",
}
"""What methods are compared by, each the sum of several questions, by a word for it."""
_SEVERITY = ("good", "info", "unknown", "caution", "problem")


@dataclass(frozen=True)
class Answer:
    """The answer to one question about a map.

    Attributes:
        question: in plain words.
        light: one of `LIGHTS`.
        answer: in plain words, with the number.
        warning: name of the warning behind the light, if there is one.
        topic: one of `TOPICS`; empty for the slower checks, which are compared one by one.
    """

    question: str
    light: str
    answer: str
    warning: str = ""
    topic: str = ""


@dataclass(frozen=True)
class TrustReport:
    """What is known of one map.

    Attributes:
        verdict: the verdict in one sentence.
        answers: the answers that its diagnostics give.
    """

    verdict: Line
    answers: list[Answer]

    @property
    def lights(self) -> dict[str, str]:
        """One light per topic: the most severe of its answers that is judged, good if none is."""
        lights = {topic: "unknown" for topic in TOPICS if topic != "other"}
        for topic in TOPICS:
            own = [answer for answer in self.answers if answer.topic == topic]
            judged = [answer.light for answer in own if answer.light != "info" or answer.warning]
            if own:
                lights[topic] = max(judged or ["info"], key=_SEVERITY.index)
        return lights


@dataclass(frozen=True)
class _Question:
    """A question that a diagnostic answers.

    Attributes:
        topic: one of `TOPICS`.
        text: the question.
        diagnostic: name of the diagnostic.
        answer: format of the answer, with `value` and its ratio `relative` to the score's change.
            The light is the level of the diagnostic's warning; "info" where it has none.
    """

    topic: str
    text: str
    diagnostic: str
    answer: str


_QUESTIONS = (
    _Question(
        "sum",
        "Does the map add up?",
        "completeness_gap",
        "The completeness gap is {value:+z.4f}, {relative:.1%} of the score's change.",
    ),
    _Question(
        "sum",
        "Does the relevance add up to the score?",
        "relevance_gap",
        "It misses {value:+z.4f}, which the model's biases contribute.",
    ),
    _Question(
        "steps",
        "Are there enough steps?",
        "sum_error",
        "By the map of every third step, this one is off by about {value:.1%}.",
    ),
    _Question(
        "path",
        "Does the confidence climb all the way?",
        "monotonicity",
        "Position on the path and confidence have a rank correlation of {value:.2f}.",
    ),
    _Question(
        "path",
        "Does the confidence fall back on the way?",
        "confidence_fallback",
        "It falls back by {value:.1%} of its range on the path.",
    ),
    _Question(
        "baseline",
        "Does the baseline hide what the model saw?",
        "confidence_change",
        "The confidence at the baseline differs from that at the {noun} by {value:+.0%}.",
    ),
    _Question(
        "path",
        "Is the whole path used?",
        "flat_fraction",
        "The score hardly moves on {value:.0%} of the path.",
    ),
    _Question(
        "baseline",
        "Did the search for the baseline converge?",
        "matching_loss_fall",
        "The matching loss fell by {value:.2g} nats.",
    ),
    _Question(
        "steps",
        "Does the map stay with more steps?",
        "stability_15_30",
        "Maps of 15 and of 30 steps have a rank correlation of {value:.2f}.",
    ),
    _Question(
        "steps",
        "Does one step do as well?",
        "stability_1_30",
        "Maps of 1 and of 30 steps have a rank correlation of {value:.2f}: the lower, the more the "
        "path bends.",
    ),
)
_NO_PATH = Answer(
    "Compared with what?",
    "unknown",
    "This method has no path from a baseline, so most of these questions do not apply. The slower "
    "checks below ask others.",
    topic="baseline",
)


def trust_report(attribution: Attribution) -> TrustReport:
    """Return the verdict on the map of a photograph, and the answers behind it."""
    return TrustReport(map_lines(attribution)[0], answers(attribution))


def map_lines(attribution: Attribution) -> list[Line]:
    """Return the verdict on the map of a photograph, and its warnings; a control explains nothing.

    A control has no warnings but those that its map is not finite, or zero everywhere.
    """
    verdict, *warnings = lines(attribution)
    if is_control(attribution):
        verdict = Line("A control: it does not depend on the model, and explains nothing.")
    return [verdict, *warnings]


def is_control(attribution: Attribution) -> bool:
    """Return whether a map is that of a control."""
    return attribution.provenance.get("family") == "control"


def compared(reports: Mapping[str, TrustReport]) -> list[tuple[str, list[str]]]:
    """Return a row for each topic: its question, and the light of each method."""
    lights = [report.lights for report in reports.values()]
    return [
        (question, [own.get(topic, "good") for own in lights])
        for topic, question in TOPICS.items()
        if any(topic in own for own in lights)
    ]


def answers(attribution: Attribution, index: int = 0, noun: str = "photograph") -> list[Answer]:
    """Return the answers that the diagnostics of one map give, the most basic question first.

    Args:
        attribution: of one or several inputs.
        index: of the input.
        noun: what an input is; only photographs are told that other checks ask more.
    """
    diagnostics = {name: float(values[index]) for name, values in attribution.diagnostics.items()}
    warnings = attribution.warnings[index]
    found = [
        _answer(question, diagnostics, warnings, noun)
        for question in _QUESTIONS
        if question.diagnostic in diagnostics
    ]
    shown = {answer.warning for answer in found}
    found += [
        Answer(name.replace("_", " "), WARNINGS[name].level, str(WARNINGS[name]), name, "other")
        for name in warnings
        if name not in shown
    ]
    asks_more = attribution.trace is None and noun == "photograph"
    return [*found, _NO_PATH] if asks_more else found


def _answer(
    question: _Question, diagnostics: Mapping[str, float], warnings: list[str], noun: str
) -> Answer:
    value, change = diagnostics[question.diagnostic], abs(diagnostics.get("score_change", 0.0))
    undefined = value != value
    relative = abs(value) / (change or 1.0)
    answer = question.answer.format(value=value, relative=relative, noun=noun)
    if undefined:
        answer = f"It is undefined for this {noun}."
    for name in warnings:  # some warnings are of undefined values, too
        rule = WARNINGS[name]
        if rule.diagnostic == question.diagnostic:
            answer = f"{answer} {rule.remedy}"
            return Answer(question.text, rule.level, answer, name, question.topic)
    judged = any(rule.diagnostic == question.diagnostic for rule in WARNINGS.values())
    light = "unknown" if undefined else "good" if judged else "info"
    return Answer(question.text, light, answer, topic=question.topic)

"""Can I trust this? Diagnostics in plain words, a traffic light each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..attribution import Attribution
from ..diagnostics import WARNINGS

LIGHTS = {
    "good": ("●", "good"),
    "fair": ("▲", "look closer"),
    "poor": ("✖", "do not rely on it"),
    "unknown": ("○", "not measured"),
}
"""What each light looks like and says: never by its colour alone."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        question: in plain words.
        light: one of `LIGHTS`.
        answer: in plain words, with the number.
        warning: the name of the warning, where one was given.
    """

    question: str
    light: str
    answer: str
    warning: str = ""


@dataclass(frozen=True)
class _Look:
    """A question, the diagnostic that answers it, and how it is told.

    Attributes:
        question: in plain words.
        diagnostic: its name.
        warning: the warning that makes the light red, where there is one.
        fair: whether the value deserves a closer look although there is no warning.
        answer: tells the value.
    """

    question: str
    diagnostic: str
    warning: str
    fair: Callable[[float, Mapping[str, float]], bool]
    answer: Callable[[float, Mapping[str, float]], str]


def _missing(value: float, known: Mapping[str, float]) -> float:
    """Return which share of the score's change the map does not account for."""
    change = abs(known.get("score_change", 0.0))
    return abs(value) / change if change else abs(value)


_LOOKS = (
    _Look(
        "Is every value a number?",
        "values_finite",
        "undefined",
        lambda value, _: False,
        lambda value, _: "Yes." if value == 1 else "No: parts of the map are undefined.",
    ),
    _Look(
        "Does the map add up?",
        "completeness_gap",
        "completeness_gap",
        lambda value, known: _missing(value, known) > 0.01,
        lambda value, known: (
            f"The completeness gap is {value:+z.4f}: {_missing(value, known):.1%} of the change of "
            "the score is not accounted for."
        ),
    ),
    _Look(
        "Does the confidence climb all the way?",
        "monotonicity",
        "non_monotonic_path",
        lambda value, _: value < 0.97,
        lambda value, _: (
            f"Place on the path and confidence have a rank correlation of {value:.2f}"
            + (": it never turns back." if value > 0.995 else ".")
        ),
    ),
    _Look(
        "Does the baseline hide what the model saw?",
        "confidence_change",
        "informative_baseline",
        lambda value, _: value > -0.5,
        lambda value, _: (
            f"At the baseline the model is {-value:.0%} less sure than at the photograph."
            if value <= 0
            else f"At the baseline the model is even {value:.0%} surer than at the photograph."
        ),
    ),
    _Look(
        "Is the whole path used?",
        "flat_fraction",
        "saturation",
        lambda value, _: value > 0.5,
        lambda value, _: f"The score hardly moves on {value:.0%} of the path.",
    ),
    _Look(
        "Are the steps small enough for the path's bends?",
        "riemann_error_bound",
        "high_path_curvature",
        lambda value, known: value > 0.5 * abs(known.get("score_change", 0.0)),
        lambda value, known: (
            f"A plain sum of as many steps could be off by {value:.2g}; the score changes by "
            f"{abs(known.get('score_change', 0.0)):.2g}."
        ),
    ),
    _Look(
        "Did the search for the baseline get anywhere?",
        "matching_loss_fall",
        "matching_loss_did_not_fall",
        lambda value, _: False,
        lambda value, _: f"The matching loss fell by {value:.2g} nats.",
    ),
    _Look(
        "Does the map stay with more steps?",
        "stability_15_30",
        "",
        lambda value, _: value < 0.95,
        lambda value, _: f"Maps of 15 and of 30 steps have a rank correlation of {value:.2f}.",
    ),
    _Look(
        "Does one step do as well?",
        "stability_1_30",
        "",
        lambda value, _: value < 0.5,
        lambda value, _: (
            f"Maps of 1 and of 30 steps have a rank correlation of {value:.2f}: the lower, the "
            "more the path bends."
        ),
    ),
)
_POOR_STABILITY = 0.8


def findings(attribution: Attribution, index: int = 0) -> list[Finding]:
    """Return what is known about one map, in the order in which a reader should ask."""
    known = {name: float(values[index]) for name, values in attribution.diagnostics.items()}
    warned = attribution.warnings[index]
    found = [_finding(look, known, warned) for look in _LOOKS if look.diagnostic in known]
    told = {look.warning for look in _LOOKS}
    for name in warned:
        if name not in told:
            found.append(Finding(name.replace("_", " "), "poor", WARNINGS[name].meaning, name))
    if attribution.trace is None:
        found.append(
            Finding(
                "Compared with what?",
                "unknown",
                "This method walks no path from a baseline, so that most questions do not arise. "
                "The slower checks below ask the others.",
            )
        )
    return found


def _finding(look: _Look, known: Mapping[str, float], warned: list[str]) -> Finding:
    value = known[look.diagnostic]
    defined = value == value
    answer = look.answer(value, known) if defined else "It is undefined for this photograph."
    if look.warning in warned:  # some warn of what is undefined, too
        bound = look.diagnostic == "riemann_error_bound"  # of the worst case; this was measured
        stays = bound and known.get("stability_15_30", 0.0) >= _POOR_STABILITY
        return Finding(look.question, "fair" if stays else "poor", answer, look.warning)
    if not defined:
        return Finding(look.question, "unknown", answer)
    if look.diagnostic == "stability_15_30" and value < _POOR_STABILITY:
        return Finding(look.question, "poor", answer)
    return Finding(look.question, "fair" if look.fair(value, known) else "good", answer)

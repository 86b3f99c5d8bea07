"""The named warnings with their levels, and the verdict that sums up one map."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Measured = Mapping[str, float]
"""All diagnostics of one input, by name."""

LEVELS = ("info", "caution", "problem")
"""Of a warning: worth knowing; look closer before you use the map; do not rely on the map."""


@dataclass(frozen=True, slots=True)
class WarningRule:
    """A named warning.

    Attributes:
        level: one of `LEVELS`.
        diagnostic: the name of the diagnostic on whose value it depends.
        applies: the condition, from that value and all diagnostics of one input.
        meaning: one sentence.
        remedy: one sentence that says what to do.
        phrase: the meaning in a few words with its number, from the same as `applies`.
    """

    level: str
    diagnostic: str
    applies: Callable[[float, Measured], bool]
    meaning: str
    remedy: str
    phrase: Callable[[float, Measured], str]

    def __str__(self) -> str:
        return f"{self.meaning} {self.remedy}"


_ROUNDING = 1e-6
"""A gap below it is one of rounding, whatever the change."""


def _gap_share(value: float, all_: Measured) -> float:
    """Return the gap as a share of the score's change; 0 where it is not above rounding."""
    if not abs(value) > _ROUNDING:
        return 0.0
    change = abs(all_.get("score_change", math.nan))
    return abs(value) / change if change else math.inf


def _misses(value: float, all_: Measured) -> str:
    share = _gap_share(value, all_)
    return f"misses {share:.0%} of the score's change" if share < 10 else "does not add up at all"


def _little_change(value: float, _: Measured) -> str:
    if value > 0.1:
        return "the model is surer at the baseline than at the input"
    return f"the confidence at the baseline differs by {value:+z.0%} only"


WARNINGS: dict[str, WarningRule] = {
    "undefined": WarningRule(
        "problem",
        "values_finite",
        lambda value, _: value != 1,
        "The map has values that are not finite numbers.",
        "Explain the model in float64, or look for the layer whose gradient is not finite.",
        lambda value, _: "has values that are not finite",
    ),
    "undefined_score": WarningRule(
        "problem",
        "completeness_gap",
        lambda value, _: not math.isfinite(value),
        "The score at the baseline is not a finite number, and nothing adds up to it.",
        "Take another baseline, or another score.",
        lambda value, _: "the score at the baseline is not finite",
    ),
    "zero_map": WarningRule(
        "problem",
        "all_zero",
        lambda value, _: value == 1,
        "The map is zero everywhere.",
        "Take another baseline, or look whether the model depends on its input at all.",
        lambda value, _: "the map is zero everywhere",
    ),
    "baseline_is_input": WarningRule(
        "problem",
        "proximity",
        lambda value, _: value == 0,
        "The baseline is the input itself, and the map is zero.",
        "Take another baseline.",
        lambda value, _: "the baseline is the input itself",
    ),
    "sign_contradicted": WarningRule(
        "problem",
        "sign_agreement",
        lambda value, _: value == 0,
        "Without the strongest column or word the score moves the other way than its sign says.",
        "Compare with another method: expected_gradients for tables, occlusion for texts.",
        lambda value, _: "the model contradicts the sign of the strongest value",
    ),
    "large_gap": WarningRule(
        "caution",
        "completeness_gap",
        lambda value, all_: _gap_share(value, all_) > 0.5,
        "The map does not add up: more than half of the score's change is missing.",
        "Raise n_steps.",
        _misses,
    ),
    "few_steps": WarningRule(
        "caution",
        "sum_error",
        lambda value, _: value > 0.4,
        "The map still changes with the number of steps: the gradient turns between them.",
        "Raise n_steps.",
        lambda value, _: f"the sum over the steps is off by about {value:.0%}",
    ),
    "no_reference": WarningRule(
        "caution",
        "reference_known",
        lambda value, _: value != 1,
        "The inputs are compared with 0, for want of something better: in a table that can be an "
        "impossible row.",
        "Pass references=, typical inputs such as training data, or 10 or more inputs at once.",
        lambda value, _: "compared with 0, for want of references",
    ),
    "one_logit_assumed": WarningRule(
        "caution",
        "one_logit_assumed",
        lambda value, _: value == 1,
        "The model's single output is taken for the logit of the positive class.",
        "Pass outputs='regression' if it is a value, or outputs='logits' if it is that logit.",
        lambda value, _: "the single output is taken for a logit",
    ),
    "probabilities_assumed": WarningRule(
        "caution",
        "probabilities_assumed",
        lambda value, _: value == 1,
        "The outputs are taken for probabilities, since they stay between 0 and 1 far from the "
        "input as well.",
        "Pass outputs='logits' or another kind if they are not.",
        lambda value, _: "the outputs are taken for probabilities",
    ),
    "logits_assumed": WarningRule(
        "caution",
        "logits_assumed",
        lambda value, _: value == 1,
        "The outputs are taken for logits: they sum to one at the inputs, but not elsewhere.",
        "Pass outputs='probabilities' or another kind if they are not.",
        lambda value, _: "the outputs are taken for logits",
    ),
    "channels_assumed": WarningRule(
        "caution",
        "channels_known",
        lambda value, _: value != 1,
        "The model does not show which axis holds the channels, and the map depends on it: the "
        "first axis after the batch was taken.",
        "Pass channels='first', 'last' or 'none'.",
        lambda value, _: "the first axis is taken for the channels",
    ),
    "completeness_gap": WarningRule(
        "info",
        "completeness_gap",
        lambda value, all_: 0.05 < _gap_share(value, all_) <= 0.5,
        "The map does not add up to the change of the score: more than 5 % is missing.",
        "Raise n_steps.",
        _misses,
    ),
    "informative_baseline": WarningRule(
        "info",
        "confidence_change",
        lambda value, _: value > -0.1,
        "The model is about as confident at the baseline as at the input, or more.",
        "Take a baseline that is further away: for uni, a larger budget.",
        _little_change,
    ),
    "non_monotonic_path": WarningRule(
        "info",
        "confidence_fallback",
        lambda value, _: value > 0.1,
        "The confidence falls back on the way to the input, and the map explains that detour too.",
        "Take a path that climbs: the method uni has one on nearly all inputs.",
        lambda value, _: f"the confidence falls back by {value:.0%} on the way",
    ),
    "saturation": WarningRule(
        "info",
        "flat_fraction",
        lambda value, all_: value > 0.5 and all_.get("confidence_change", math.nan) < -0.95,
        "The confidence at the baseline is nearly 0 and the score is flat on more than half of the "
        "path, so that few steps determine the whole map.",
        "Take a nearer baseline: the method uni has one.",
        lambda value, _: f"the score is flat on {value:.0%} of the path",
    ),
    "matching_loss_did_not_fall": WarningRule(
        "info",
        "matching_loss_fall",
        lambda value, _: not value > 0,
        "The search for the baseline did not come closer to the unlearned model's output.",
        "Search with line_search=True and projection='ball'.",
        lambda value, _: "the search for the baseline found nothing better than its start",
    ),
}
"""The named warnings, in the order in which they are reported: problems first."""

_HEADS = {
    None: "Usable",
    "info": "Usable",
    "caution": "Usable with care",
    "problem": "Do not rely on it",
}
_GAPS = {"completeness_gap", "large_gap", "undefined_score"}
_STABLE = 0.9
"""From this rank correlation with the map by every third node on, a map is called stable."""
_UNCHECKED = "Not checked: the method has no path, and nothing in the map says how good it is"


def warn(diagnostics: Measured) -> list[str]:
    """Return the names of the warnings that one input's diagnostics call for."""
    return [
        name
        for name, rule in WARNINGS.items()
        if rule.diagnostic in diagnostics
        and rule.applies(diagnostics[rule.diagnostic], diagnostics)
    ]


def highest_level(names: list[str]) -> str | None:
    """Return the highest level of some warnings; None without any."""
    return max((WARNINGS[name].level for name in names), key=LEVELS.index, default=None)


def verdict(diagnostics: Measured) -> str:
    """Return one line that says whether one input's map can be used, and why.

    Its first words follow the highest level of the warnings; their phrases stand behind.
    """
    names = warn(diagnostics)
    level = highest_level(names)
    rules = [WARNINGS[name] for name in names]
    doubts = [rule.phrase(diagnostics[rule.diagnostic], diagnostics) for rule in rules]
    strengths = []
    if "completeness_gap" in diagnostics and not _GAPS & set(names):
        strengths.append("adds up")
    stability = diagnostics.get("sum_stability", math.nan)
    if stability == stability and "few_steps" not in names:
        shown = (
            f"stable ({stability:.2f})" if stability >= _STABLE else f"stability {stability:.2f}"
        )
        strengths.append(shown)
    if not strengths and not doubts:
        return f"{_UNCHECKED}."
    reasons = [", ".join(strengths), *doubts]
    return f"{_HEADS[level]}: {'; '.join(filter(None, reasons))}."

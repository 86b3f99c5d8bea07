"""The named warnings and their conditions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WarningRule:
    """A named warning.

    Attributes:
        diagnostic: the name of the diagnostic on whose value it depends.
        applies: the condition, from that value and all diagnostics of one input.
        meaning: one line for the user.
    """

    diagnostic: str
    applies: Callable[[float, Mapping[str, float]], bool]
    meaning: str


WARNINGS: dict[str, WarningRule] = {
    "undefined": WarningRule(
        "values_finite",
        lambda value, _: value != 1,
        "the map has values that are not finite numbers",
    ),
    "completeness_gap": WarningRule(
        "completeness_gap",
        lambda value, all_: abs(value) > 0.05 * abs(all_["score_change"]),
        "the map does not add up to the change of the score: more than 5 % is missing; "
        "raise n_steps",
    ),
    "non_monotonic_path": WarningRule(
        "monotonicity",
        lambda value, _: value < 0.9,
        "the confidence rises and falls along the path: some of the map explains detours",
    ),
    "saturation": WarningRule(
        "flat_fraction",
        lambda value, all_: value > 0.5 and all_.get("confidence_change", math.nan) < -0.95,
        "the confidence at the baseline is nearly 0 and the score is flat on more than half of the "
        "path: few steps determine the whole map",
    ),
    "high_path_curvature": WarningRule(
        "riemann_error_bound",
        lambda value, all_: value > abs(all_["score_change"]),
        "the gradient changes so fast along the path that a Riemann sum of as many steps could be "
        "wrong by as much as the whole change of the score",
    ),
    "informative_baseline": WarningRule(
        "confidence_change",
        lambda value, _: value > -0.1,
        "the model is nearly as confident at the baseline as at the input: the map explains little",
    ),
    "baseline_is_input": WarningRule(
        "proximity",
        lambda value, _: value == 0,
        "the baseline is the input itself: the map is zero",
    ),
    "matching_loss_did_not_fall": WarningRule(
        "matching_loss_fall",
        lambda value, _: not value > 0,
        "the search for the baseline did not come closer to the unlearned model's output: treat "
        "the map with caution; lower budget, or take more matching_steps, although rounding then "
        "affects the map more",
    ),
    "one_logit_assumed": WarningRule(
        "one_logit_assumed",
        lambda value, _: value == 1,
        "the model's single output is taken for the logit of the positive class; pass "
        "outputs='regression' if it is a value, or outputs='logits' if it is that logit",
    ),
    "probabilities_assumed": WarningRule(
        "probabilities_assumed",
        lambda value, _: value == 1,
        "the outputs are taken for probabilities, since they stay between 0 and 1 far from the "
        "input as well; pass outputs='logits' or another kind if they are not",
    ),
    "logits_assumed": WarningRule(
        "logits_assumed",
        lambda value, _: value == 1,
        "the outputs are taken for logits: they sum to one at the inputs, but not elsewhere; pass "
        "outputs='probabilities' or another kind if they are not",
    ),
    "channels_assumed": WarningRule(
        "channels_known",
        lambda value, _: value != 1,
        "the model does not show which axis holds the channels, and the map depends on it: the "
        "first axis after the batch was taken; pass channels='first', 'last' or 'none'",
    ),
}
"""The named warnings, in the order in which they are reported."""


def warn(diagnostics: Mapping[str, float]) -> list[str]:
    """Return the names of the warnings that one input's diagnostics call for."""
    return [
        name
        for name, rule in WARNINGS.items()
        if rule.diagnostic in diagnostics
        and rule.applies(diagnostics[rule.diagnostic], diagnostics)
    ]

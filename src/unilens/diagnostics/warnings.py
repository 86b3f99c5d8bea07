"""The named warnings, and when each is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Warned:
    """A named warning: when it is given, and what it means to a reader."""

    diagnostic: str
    bad: Callable[[float, Mapping[str, float]], bool]
    meaning: str


WARNINGS: dict[str, Warned] = {
    "undefined": Warned(
        "values_finite",
        lambda value, _: value != 1,
        "the map has values that are not finite numbers",
    ),
    "completeness_gap": Warned(
        "completeness_gap",
        lambda value, all_: abs(value) > 0.05 * abs(all_["score_change"]),
        "the map does not add up to the change of the score: more than 5 % is missing; "
        "raise n_steps",
    ),
    "non_monotonic_path": Warned(
        "monotonicity",
        lambda value, _: value < 0.9,
        "the confidence rises and falls on the way from the baseline: parts of the map "
        "explain detours",
    ),
    "saturation": Warned(
        "flat_fraction",
        lambda value, all_: value > 0.5 and all_.get("confidence_change", math.nan) < -0.95,
        "the path begins where the model sees nothing and is flat for more than half of its "
        "length: few steps make the whole map",
    ),
    "high_path_curvature": Warned(
        "riemann_error_bound",
        lambda value, all_: value > abs(all_["score_change"]),
        "the gradient turns so fast along the path that a plain sum of as many steps could be off "
        "by as much as the whole change of the score",
    ),
    "informative_baseline": Warned(
        "confidence_change",
        lambda value, _: value > -0.1,
        "the model is nearly as sure at the baseline as at the input: the map explains little",
    ),
    "baseline_is_input": Warned(
        "proximity",
        lambda value, _: value == 0,
        "the baseline is the input itself: the map is zero",
    ),
    "matching_loss_did_not_fall": Warned(
        "matching_loss_fall",
        lambda value, _: not value > 0,
        "the search for the baseline did not come nearer to the unlearned model's output; "
        "lower budget, or take more matching_steps, which rounding then decides more of",
    ),
    "one_logit_assumed": Warned(
        "one_logit_assumed",
        lambda value, _: value == 1,
        "the model's single output is taken for the logit of the positive class; say "
        "outputs='regression' if it is a value, or outputs='logits' if it is that logit",
    ),
    "probabilities_assumed": Warned(
        "probabilities_assumed",
        lambda value, _: value == 1,
        "the outputs are taken for probabilities, since they stay between 0 and 1 far from the "
        "input as well; say outputs='logits' or another kind if they are not",
    ),
    "logits_assumed": Warned(
        "logits_assumed",
        lambda value, _: value == 1,
        "the outputs are taken for logits: they sum to one at the inputs, but not elsewhere; say "
        "outputs='probabilities' or another kind if they are not",
    ),
    "channels_assumed": Warned(
        "channels_known",
        lambda value, _: value != 1,
        "which axis holds the channels could not be read off the model, and the map depends on it: "
        "the first after the batch was taken; say channels='first', 'last' or 'none'",
    ),
}
"""The named warnings, in the order in which they are reported."""


def warn(diagnostics: Mapping[str, float]) -> list[str]:
    """Return the names of the warnings that one input's diagnostics call for."""
    return [
        name
        for name, warned in WARNINGS.items()
        if warned.diagnostic in diagnostics
        and warned.bad(diagnostics[warned.diagnostic], diagnostics)
    ]

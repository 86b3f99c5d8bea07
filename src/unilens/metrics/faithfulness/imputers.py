"""Imputers: what replaces removed pixels, in every metric that removes some.

One imputer favours the baseline that equals it: a metric run with several reports each, and the
mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..._ops.random import seed_for
from ..._validation.settings import Check, Settings, check_component
from ...baselines import Baseline, baselines
from ...baselines.base import baseline_results, check_single, single, to_baseline
from ...errors import require
from ...registry import Card, Registry
from ..context import EvalContext

ImputeFunction = Callable[[Tensor], Tensor]
"""From the positions kept `(n, B, *spatial)`, boolean, to imputed inputs `(n, B, *S)`."""


Imputer = Callable[[EvalContext], ImputeFunction]
"""Replaces removed positions, in all channels: from a context to a function that does it.

It does not depend on the context's map, so that all maps are judged by the same inputs.
"""
imputers: Registry[Imputer] = Registry("imputer")


@dataclass(frozen=True)
class Replacement(Settings):
    """Replace removed positions by the values of a baseline.

    Args:
        baseline: any of `unilens.baselines`; it does not depend on what is removed.
    """

    baseline: Baseline

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", to_baseline(self.baseline))
        check_single(self.baseline)

    def __call__(self, context: EvalContext) -> ImputeFunction:
        """Return the imputing function; see `Imputer`."""
        self.baseline.check(context.evaluator, context.inputs)
        generator = torch.Generator().manual_seed(seed_for("fill", context.seed))
        given = self.baseline(
            context.evaluator, context.inputs, context.target, generator=generator
        )
        inputs, values = context.inputs, single(baseline_results(given)).values

        def impute(kept: Tensor) -> Tensor:
            return torch.where(over_channels(kept, inputs), inputs, values)

        return impute


def impute_function(imputer: Imputer, context: EvalContext) -> ImputeFunction:
    """Return the imputing function, made once for all maps; see `Imputer`."""
    return context.once(("imputer", imputer), lambda: imputer(context))


def over_channels(kept: Tensor, inputs: Tensor) -> Tensor:
    """Return `(n, B, *spatial)` in a shape that broadcasts against inputs `(B, *S)`."""
    return kept.unsqueeze(2) if inputs.ndim > 2 else kept


ImputerChoice = str | Imputer | Sequence[str | Imputer]


def resolve_imputers(imputer: ImputerChoice) -> dict[str, Imputer]:
    """Return the imputers of a setting, by name: from a name, an object, or several."""
    several = [imputer] if isinstance(imputer, str) or callable(imputer) else imputer
    require(
        isinstance(several, (tuple, list)) and bool(several),
        f"expected imputer to be one of {', '.join(imputers)}, or several of them, got {imputer!r}",
    )
    found: dict[str, Imputer] = {}
    for choice in several:
        if isinstance(choice, str):
            found[choice] = imputers[choice]()
        else:
            check_component("imputer", choice)
            name = type(choice).__name__
            found[name if name not in found else f"{name} {len(found)}"] = choice
    return found


AnyImputer = Annotated[
    ImputerChoice, Check(lambda _, value: resolve_imputers(value), lambda: imputers)
]
"""A setting: the name of a registered imputer, an imputer, or several."""


def _of_baseline(name: str, baseline: str, summary: str) -> None:
    card = baselines[baseline].card
    imputers.add(
        Card(name, "replacement", summary, card.reference, card.deterministic),
        lambda: Replacement(baselines[baseline]()),
    )


_of_baseline("black", "black", "0 everywhere")
_of_baseline("grey", "grey", "0.5 everywhere")
_of_baseline("image_mean", "image_mean", "the input's own mean, per channel")
_of_baseline("blur", "blur", "the input, blurred")
_of_baseline("noise", "uniform_noise", "uniform draws from the input box")

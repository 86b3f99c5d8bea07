"""What is put where places are removed: a dimension of its own of every metric that removes.

One fill rewards the baseline that equals it: a metric run over several reports each, and the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..._ops.random import seed_for
from ..._validation.settings import Settings, check_component
from ...baselines import Baseline, baselines
from ...baselines.base import baseline_results, check_single, single, to_baseline
from ...errors import require
from ...registry import Card, Registry
from ..context import EvalContext

Filled = Callable[[Tensor], Tensor]
"""From the places to be kept `(n, B, *places)`, true or false, to inputs `(n, B, *S)`."""


class Imputer(Protocol):
    """What is put where places are removed. Removed and kept places are whole: all channels.

    It does not depend on the context's map, so that every map is asked the same questions.
    """

    def __call__(self, context: EvalContext) -> Filled:
        """Return the function that removes places from the context's inputs."""


imputers: Registry[Imputer] = Registry("fill")


@dataclass(frozen=True)
class Replacement(Settings):
    """Put a baseline's values where places are removed.

    Args:
        baseline: any of `unilens.baselines`; it does not depend on what is removed.
    """

    baseline: Baseline

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", to_baseline(self.baseline))
        check_single(self.baseline)

    def __call__(self, context: EvalContext) -> Filled:
        """Return the function that removes places; see `Imputer`."""
        self.baseline.check(context.evaluator, context.inputs)
        generator = torch.Generator().manual_seed(seed_for("fill", context.seed))
        given = self.baseline(
            context.evaluator, context.inputs, context.target, generator=generator
        )
        inputs, values = context.inputs, single(baseline_results(given)).values

        def filled(kept: Tensor) -> Tensor:
            return torch.where(over_channels(kept, inputs), inputs, values)

        return filled


def imputed_by(fill: Imputer, context: EvalContext) -> Filled:
    """Return the function that removes places, the same for all maps; see `Imputer`."""
    return context.once(("fill", fill), lambda: fill(context))


def over_channels(kept: Tensor, inputs: Tensor) -> Tensor:
    """Return places `(n, B, *places)` in a shape that broadcasts against inputs `(B, *S)`."""
    return kept.unsqueeze(2) if inputs.ndim > 2 else kept


FillNames = str | Imputer | Sequence[str | Imputer]


def imputers_of(fill: FillNames) -> dict[str, Imputer]:
    """Return the fills that a setting names, by name: a name, an object, or several of them."""
    several = [fill] if isinstance(fill, str) or callable(fill) else fill
    require(
        isinstance(several, (tuple, list)) and bool(several),
        f"expected fill to be one of {', '.join(imputers)}, or several of them, got {fill!r}",
    )
    found: dict[str, Imputer] = {}
    for one in several:
        if isinstance(one, str):
            found[one] = imputers[one]()
        else:
            check_component("fill", one)
            name = type(one).__name__
            found[name if name not in found else f"{name} {len(found)}"] = one
    return found


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

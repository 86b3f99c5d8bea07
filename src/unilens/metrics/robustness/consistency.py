"""Consistency: does the map stay under corruptions that keep the class?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import torch

from ..._engine.evaluator import PassCount
from ..._validation.settings import Check
from ...errors import require
from ...scores import AnyScore
from ...scores import resolve as resolve_score
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from .corruptions import Corruption, check_corruptible, corruptions
from .perturbations import labels

CorruptionChoice = str | Corruption | Sequence[str | Corruption]
AnyCorruption = Annotated[
    CorruptionChoice, Check(lambda _, value: _resolve_corruptions(value), lambda: corruptions)
]
"""A setting: the name of a registered corruption, a corruption, or several."""


@dataclass(frozen=True)
class Consistency(Comparison):
    """Compare the map with maps of the image under corruptions: light, colour, focus, noise.

    mean of similarity( A(x), A(x') ) over those changed pictures x' whose predicted class is the
    one at x; NaN where there is none. The class explained stays the same. High is good, up to a
    point: a map that ignores the model is consistent too (ask `randomisation_cascading`), and where
    the score changes, so should the map: `details` has by how much it did.

    Args:
        similarity: compares two maps.
        corruption: one of `unilens.metrics.corruptions`, by name or as an object, or several.
        strengths: of the corruptions, in their units; None for the first three severities of
            ImageNet-C, which are made for images of 224 x 224 pixels.
        score: its changes are in `details`; by name or as a function of logits and target.

    References:
        Choi et al. 2025, arXiv 2410.08069 (figures 2 to 5, which show it); the changes after
        Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """

    family = "sanity"
    reference = "Choi et al. 2025, arXiv 2410.08069, figures 2 to 5"
    bounds = (-1, 1)
    needs = ("method",)
    undefined_where = "no changed picture keeps the predicted class"

    corruption: AnyCorruption = "brightness"
    strengths: tuple[float, ...] | list[float] | None = None
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.strengths is None
            or (isinstance(self.strengths, (tuple, list)) and bool(self.strengths)),
            f"expected strengths to be a tuple of numbers or None, got {self.strengths!r}",
        )
        for _, corruption, strength in self._corruptions:
            corruption.check(strength)

    @property
    def _corruptions(self) -> list[tuple[str, Corruption, float]]:
        """The corruptions with their strengths, each with a name."""
        return [
            (f"{name} {strength:g}", corruption, strength)
            for name, corruption in _resolve_corruptions(self.corruption).items()
            for strength in self.strengths or corruption.severities[:3]
        ]

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input."""
        return PassCount(1 + len(self._corruptions), 0)

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input, at most."""
        return len(self._corruptions)

    def _measure(self, context: EvalContext) -> Measurement:
        check_corruptible(context.inputs)
        score = resolve_score(self.score, context.evaluator)
        before = context.score_of(score, context.outputs)
        breakdown, differences, kept = {}, [], []
        for name, corruption, strength in self._corruptions:
            changed = corruption(context.inputs, strength, context.generators())
            key = "changed", corruption, strength
            outputs = context.once(key, partial(context.evaluator, changed))
            kept.append(labels(context, outputs) == labels(context, context.outputs))
            differences.append(context.score_of(score, outputs) - before)
            found = torch.full_like(before, torch.nan)
            rows = kept[-1].nonzero().squeeze(1)
            if len(rows):
                maps = context.explain(changed[rows], rows=rows)
                found[rows] = self._similarity(context.values[rows], maps)
            breakdown[name] = found
        values = torch.stack(list(breakdown.values()), 1)
        details = {
            "similarities": values,
            "kept": torch.stack(kept, 1),
            "score_changes": torch.stack(differences, 1),
        }
        return Measurement(values.nanmean(1), breakdown, details)


def _resolve_corruptions(corruption: CorruptionChoice) -> dict[str, Corruption]:
    """Return the corruptions of a setting, by name: from a name, an object, or several."""
    several = [corruption] if isinstance(corruption, (str, Corruption)) else corruption
    require(
        isinstance(several, (tuple, list))
        and bool(several)
        and all(isinstance(one, (str, Corruption)) for one in several),
        f"expected corruption to be one of {', '.join(corruptions)}, or several of them, got "
        f"{corruption!r}",
    )
    found: dict[str, Corruption] = {}
    for one in several:
        corruption = corruptions[one]() if isinstance(one, str) else one
        name = one if isinstance(one, str) else getattr(one.function, "__name__", "corruption")
        found[name if name not in found else f"{name} ({len(found)})"] = corruption
    return found


for _name, _corruption, _words in (
    ("brightness", "brightness", "made lighter"),
    ("saturation", "saturation", "with more or less colour"),
    ("blur", ("gaussian_blur", "defocus_blur"), "blurred"),
    ("noise", ("gaussian_noise", "shot_noise"), "with noise"),
):
    metrics.add_metric(
        f"{_name}_consistency",
        Consistency,
        settings={"corruption": _corruption},
        summary=f"similarity with maps of the image {_words}, where the class is kept",
        deterministic=_name != "noise",
    )

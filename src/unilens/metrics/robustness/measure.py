"""Does the map stay when the input changes a little, and the prediction does not?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from torch import Tensor

from ..._engine.evaluator import PassCount
from ..._ops.precision import l2_norm
from ..._validation.settings import instance_of
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from .attack import Attack
from .perturbations import Perturbation, PerturbedInputs, perturbations


@dataclass(frozen=True)
class Robustness(Comparison):
    """How alike the maps before and after a change of the input are, under the same label.

    similarity(A(x), A(x')), the target fixed at x; NaN where the change does not keep the label.
    An attack's value means nothing by itself: compare it with that of "noise" of the same radius.
    `details` has the changed inputs, both maps, whether the label was kept, and how far the input
    moved in both norms.

    Args:
        similarity: compares two maps; any of `unilens.metrics.similarities`.
        perturbation: the change; any of `unilens.metrics.perturbations`.

    References:
        Ghorbani et al. 2019, arXiv 1710.10547; Kamath et al. 2024, arXiv 2312.10534 (the control).
    """

    family = "robustness"
    summary = "similarity of the maps before and after a change; both can be chosen"
    reference = "Ghorbani et al. 2019, arXiv 1710.10547"
    deterministic = False
    bounds = (-1, 1)
    needs = ("method",)
    components = (("perturbation", perturbations, "attack"), *Comparison.components)
    undefined_where = (
        "the changed input has another predicted class, or a map that is the same everywhere"
    )

    perturbation: Annotated[Perturbation, instance_of(Perturbation)] = field(default_factory=Attack)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, besides those of explanations."""
        return PassCount(1, 0) + self.perturbation.passes

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input, at most."""
        return 1 + self.perturbation.explanations

    def _measure(self, context: EvalContext) -> Measurement:
        changed, after = context.once_per_map(
            ("changed", self.perturbation), lambda: self._again(context)
        )
        shift = changed.inputs - context.inputs
        value = self._similarity(context.values, after).masked_fill(~changed.kept, torch.nan)
        details = {
            "inputs": changed.inputs,
            "before": context.values,
            "after": after,
            "kept": changed.kept,
            "distance_linf": shift.abs().flatten(1).amax(1),
            "distance_l2": l2_norm(shift),
        }
        return Measurement(value, {}, {**details, **changed.details}, changed.provenance)

    def _again(self, context: EvalContext) -> tuple[PerturbedInputs, Tensor]:
        """Return the changed inputs, and the maps there."""
        if self.perturbation.map_independent:
            changed = context.once(
                ("perturbed", self.perturbation), lambda: self.perturbation(context)
            )
        else:
            changed = self.perturbation(context)
        return changed, context.explain(changed.inputs)


for _perturbation, _words in {
    "attack": "an iterative attack on the map",
    "fgsm": "a one-step attack on the map",
    "fgsm_label": "a one-step attack on the label that fails",
    "noise": "random signs, the attacks' control",
    "corruption": "a change of light, colour or focus",
}.items():
    for _similarity, _summary in {
        "spearman": f"rank correlation of the maps before and after {_words}",
        "top_k": f"share of the top k positions that stay under {_words}",
    }.items():
        if (_perturbation, _similarity) != ("corruption", "top_k"):
            metrics.add_metric(
                f"{_perturbation}_{_similarity}",
                Robustness,
                components={"perturbation": _perturbation, "similarity": _similarity},
                selectable=(),
                summary=_summary,
                reference=perturbations[_perturbation].card.reference,
                deterministic=_perturbation == "fgsm_label",
                bounds=(0 if _similarity == "top_k" else -1, 1),
            )
metrics.add_metric("robustness", Robustness)

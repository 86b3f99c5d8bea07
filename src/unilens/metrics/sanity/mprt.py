"""Two forms of the randomisation test: smooth, and efficient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._ops.precision import expand_like, to_float64
from ..._ops.random import standard_normal
from ..._validation.settings import Count, Positive, TwoOrMore
from ..base import Metric
from ..context import EvalContext
from ..maps import Reduction, constant, reduce_channels
from ..measurement import Measurement
from ..registry import metrics
from .layers import layer_order, randomised
from .randomisation import RandomisationStages, explained


@dataclass(frozen=True)
class SmoothRandomisation(RandomisationStages):
    """The randomisation test on means of maps over noisy inputs, of both models.

    mean over stages s of similarity( mean_n A(x + e_n; theta), mean_n A(x + e_n; theta_s) ), e_n
    normal with a standard deviation of `noise` times the input's range. Both models are explained
    at the same noisy inputs. The map that is given says which method to use and no more.

    Args:
        similarity: see `RandomisationStages`.
        mode: see `RandomisationStages`.
        layers: see `RandomisationStages`.
        samples: how many noisy inputs; the field takes 50.
        noise: standard deviation, as a fraction of the difference of the input's largest and
            smallest value.

    References:
        Hedström et al. 2024, arXiv 2401.06465.
    """

    reference = "Hedström et al. 2024, arXiv 2401.06465"

    samples: Count = 10
    noise: Positive = 0.1

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input, at most."""
        return self.samples * (1 + super().explanations)

    def _noisy(self, context: EvalContext) -> Iterator[Tensor]:
        """Yield the noisy inputs `(B, *S)`, the same at every call."""
        inputs, generators = context.inputs, context.generators()
        flat = inputs.flatten(1)
        deviation = expand_like(self.noise * (flat.amax(1) - flat.amin(1)), inputs)
        for _ in range(self.samples):
            drawn = [standard_normal(inputs.shape[1:], own) for own in generators]
            yield inputs + deviation * torch.stack(drawn).to(inputs)

    def _original(self, context: EvalContext) -> Tensor:
        maps = torch.stack([to_float64(context.explain(noisy)) for noisy in self._noisy(context)])
        none = constant(context.values).view(-1, *(1,) * (maps.ndim - 2))
        return maps.mean(0).masked_fill(none, 0.0)

    def _randomised(
        self, context: EvalContext, changed: Evaluator, stage: str, failures: dict[str, str]
    ) -> Tensor:
        maps = [
            explained(context, noisy, changed, stage, failures) for noisy in self._noisy(context)
        ]
        return to_float64(torch.stack(maps)).mean(0)


@dataclass(frozen=True)
class EfficientRandomisation(Metric):
    """The relative rise of the map's entropy where all weights are random.

    (H(A(x; theta')) - H(A(x; theta))) / H(A(x; theta)), H the entropy of a histogram of the map's
    values with equal bins from the smallest to the largest, theta' the model with every layer
    randomised as in `Randomisation`. High is good: without learned weights a map should be noise.
    No two maps are compared, so that no similarity has to be chosen. The breakdown has both
    entropies.

    Args:
        reduction: "sum", values summed over channels, or "abs", sums of absolute values.
        bins: of the histogram.

    References:
        Hedström et al. 2024, arXiv 2401.06465.
    """

    family = "sanity"
    summary = "relative rise of the map's histogram entropy where all weights are random"
    reference = "Hedström et al. 2024, arXiv 2401.06465"
    deterministic = False
    traits = ("other_models",)
    bounds = (-1, None)
    needs = ("method",)
    passes = PassCount(2, 1)  # at the inputs, and one to find the layers
    explanations = 1
    undefined_where = "the randomised model gives no map that differs from place to place"

    reduction: Reduction = "sum"
    bins: TwoOrMore = 100

    def _measure(self, context: EvalContext) -> Measurement:
        model, failures = context.evaluator.private_module(context.inputs), dict[str, str]()
        fresh = randomised(model, layer_order(context), context.seed)
        changed = context.evaluator.with_model(fresh)
        maps = explained(context, context.inputs, changed, "all", failures)
        before, after = self._entropies(context.values), self._entropies(maps)
        breakdown = {"original": before, "randomised": after}
        return Measurement((after - before) / before, breakdown, {}, {"failures": failures})

    def _entropies(self, maps: Tensor) -> Tensor:
        """Return the histogram entropies of maps `(B, *S)`; NaN for those without two values."""
        relevance = reduce_channels(maps, self.reduction)
        entropies = [self._entropy(values.flatten().cpu().numpy()) for values in relevance]
        return relevance.new_tensor(entropies).masked_fill(constant(relevance), torch.nan)

    def _entropy(self, values: numpy.ndarray) -> float:
        if not numpy.isfinite(values).all():
            return numpy.nan
        counts = numpy.histogram(values, self.bins)[0]
        shares = counts[counts > 0] / len(values)
        return float(-(shares * numpy.log(shares)).sum())


metrics.add_metric(
    "smooth_mprt",
    SmoothRandomisation,
    settings={"mode": "cascading", "reduction": "abs"},
    summary="randomisation_cascading on means of maps over noisy inputs",
)
metrics.add_metric("efficient_mprt", EfficientRandomisation)

"""Sanity: does the map depend on what the model has learned, and on the class it explains?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._engine.memory import out_of_memory
from ..._validation.settings import Count, check_count, one_of
from ...errors import NotApplicableError, UnilensError, first_line, require
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from ..similarities import Similarity, Spearman
from .layers import evenly, layer_order, randomised, within

MODES = ("cascading", "independent")
"""cascading: all layers from the output down to the one named; independent: that one alone."""


@dataclass(frozen=True)
class RandomisationStages(Comparison):
    """The base of metrics that compare maps with those of randomised copies, stage by stage.

    Args:
        similarity: compares two maps. By default rank correlation of absolute values: signs
            that flip at random would hide that the shape stays (the paper reports both).
        mode: "cascading" or "independent"; see `MODES`.
        layers: how many stages at most, spread evenly over the depth from the layer next to the
            output to the one next to the input; or names of layers or blocks.
    """

    family = "sanity"
    reference = "Adebayo et al. 2018, arXiv 1810.03292"
    deterministic = False
    traits = ("other_models",)
    higher_is_better = False
    bounds = (-1, 1)
    needs = ("method",)
    passes = PassCount(2, 1)  # at the inputs, and one to find the layers
    undefined_where = "no randomised model gives a map that differs from place to place"

    similarity: Similarity = Spearman("abs")  # noqa: RUF009 - it is frozen
    mode: Annotated[str, one_of(MODES)] = "cascading"
    layers: int | tuple[str, ...] | list[str] = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.layers, (tuple, list)):
            require(
                bool(self.layers) and all(isinstance(name, str) for name in self.layers),
                f"expected layers to be a number or names of layers, got {self.layers!r}",
            )
        else:
            check_count("layers", self.layers)

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input, at most."""
        return self.layers if isinstance(self.layers, int) else len(self.layers)

    def _measure(self, context: EvalContext) -> Measurement:
        model = context.evaluator.private_module(context.inputs)
        failures: dict[str, str] = {}
        stages = self._stages(layer_order(context))
        original, breakdown = self._original(context), {}
        for name, layers in stages.items():
            changed = context.evaluator.with_model(randomised(model, layers, context.seed))
            maps = self._randomised(context, changed, name, failures)
            breakdown[name or type(context.evaluator.model).__name__] = self._similarity(
                original, maps
            )
        curve = torch.stack(list(breakdown.values()), 1)
        made: dict[str, Any] = {
            "stages": list(breakdown),
            "weights": "normal, of each tensor's own mean and standard deviation",
            "failures": failures,
        }
        undefined = curve.isnan().sum(1)
        return Measurement(
            curve.nanmean(1), breakdown, {"curve": curve, "undefined_stages": undefined}, made
        )

    def _original(self, context: EvalContext) -> Tensor:
        """Return the maps `(B, *S)` of the model itself."""
        return context.values

    def _randomised(
        self, context: EvalContext, changed: Evaluator, stage: str, failures: dict[str, str]
    ) -> Tensor:
        """Return the maps `(B, *S)` of a randomised model; see `explained`."""
        return explained(context, context.inputs, changed, stage, failures)

    def _stages(self, order: list[str]) -> dict[str, list[str]]:
        """Return the layers whose weights are random at each stage, by the stage's name."""
        names = evenly(order, self.layers) if isinstance(self.layers, int) else self.layers
        single = isinstance(self.layers, int)
        alone = {name: [name] if single else within(order, name) for name in names}
        if self.mode == "independent":
            return alone
        deepest = {name: max(map(order.index, layers)) for name, layers in alone.items()}
        return {
            name: order[: deepest[name] + 1] for name in sorted(deepest, key=deepest.__getitem__)
        }


class Randomisation(RandomisationStages):
    """Compare the map with maps of copies of the model whose weights are random, layer by layer.

    mean over stages s of similarity( A(x; theta), A(x; theta_s) ). Low is good: a map that stays
    when the weights go explains the picture, not the model. The class stays the one of the original
    map. The paper re-initialises; here weights are drawn from a normal distribution with the mean
    and standard deviation of the tensor that they replace: that needs no knowledge of how the model
    was initialised, works for every kind of weight, and signals keep their scale, so that what
    changes is what was learned (batch norms keep their running statistics). Stages at which the
    method gives no map, or a constant one, are left out of the mean and counted in `details`.

    Args:
        similarity: see `RandomisationStages`.
        mode: see `RandomisationStages`.
        layers: see `RandomisationStages`.

    References:
        Adebayo et al. 2018, arXiv 1810.03292. On what the order of the layers does to it:
        Binder et al. 2023, arXiv 2211.12486.
    """


def explained(
    context: EvalContext,
    inputs: Tensor,
    changed: Evaluator,
    stage: str,
    failures: dict[str, str],
) -> Tensor:
    """Return the maps of a changed model, NaN for inputs that the method cannot explain there.

    Args:
        context: whose method explains.
        inputs: `(B, *S)`, those of the context or others in their place.
        changed: the model.
        stage: its name, for what is noted of a failure.
        failures: the message of each stage that failed, added to here.
    """
    maps = []
    try:
        return context.explain(inputs, changed)
    except (UnilensError, RuntimeError, ArithmeticError) as error:
        if out_of_memory(error):
            raise
        failures[stage] = first_line(error)
        if len(inputs) == 1:
            return torch.full_like(inputs, torch.nan)
    for row in torch.arange(len(inputs), device=inputs.device).split(1):
        one = inputs[row]
        try:
            maps.append(context.explain(one, changed, rows=row))
        except (UnilensError, RuntimeError, ArithmeticError) as error:
            if out_of_memory(error):
                raise
            maps.append(torch.full_like(one, torch.nan))
    return torch.cat(maps)


@dataclass(frozen=True)
class RandomLogit(Comparison):
    """Compare the map with the map of another class, drawn at random.

    similarity( A_c(x), A_k(x) ), k != c uniform, the mean over the draws. Low is good: a map that
    is the same for every class says nothing of this one. The similarity is signed by default: of
    two classes the one's evidence is the other's counter-evidence, and their maps differ in the
    sign alone.

    Args:
        similarity: compares two maps.
        draws: how many other classes, all different.

    References:
        Sixt et al. 2020, arXiv 1912.09818.
    """

    family = "sanity"
    summary = "similarity with the map of another class"
    reference = "Sixt et al. 2020, arXiv 1912.09818"
    deterministic = False
    higher_is_better = False
    bounds = (-1, 1)
    needs = ("method",)
    undefined_where = "the map of the other class is the same everywhere"

    draws: Count = 1

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input."""
        return self.draws

    def _measure(self, context: EvalContext) -> Measurement:
        others = self._others(context)
        values = torch.stack(
            [
                self._similarity(context.values, context.explain(context.inputs, target=other))
                for other in others.T
            ],
            1,
        )
        return Measurement(values.nanmean(1), {}, {"classes": others, "similarities": values})

    def _others(self, context: EvalContext) -> Tensor:
        """Return the other classes `(B, draws)`."""
        count = context.outputs.shape[1] - 1
        if count < self.draws:
            raise NotApplicableError(
                f"expected more than {self.draws} classes to draw {self.draws} others from, got "
                f"{count + 1}; take fewer draws, or another metric for a model of one output"
            )
        drawn = torch.stack(
            [torch.randperm(count, generator=own)[: self.draws] for own in context.generators()]
        ).to(context.target.device)
        return drawn + (drawn >= context.target.unsqueeze(1)).long()


metrics.add_metric(
    "randomisation_cascading",
    Randomisation,
    settings={"mode": "cascading", "reduction": "abs"},
    summary="similarity with maps of the model made random from the output down",
)
metrics.add_metric(
    "randomisation_independent",
    Randomisation,
    settings={"mode": "independent", "reduction": "abs"},
    summary="similarity with maps of the model with one layer made random",
)
metrics.add_metric("random_logit", RandomLogit)

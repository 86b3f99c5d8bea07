"""Input invariance: does the map stay where the input is shifted and the model shifts it back?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from ..._engine.evaluator import PassCount
from ..._validation.settings import Number
from ..comparison import Comparison
from ..context import EvalContext
from ..measurement import Measurement
from ..registry import metrics
from .layers import hookable_copy


@dataclass(frozen=True)
class InputInvariance(Comparison):
    """Compare the map with that of a shifted input by a model that shifts it back.

    similarity( A(x; f), A(x + m; f_m) ), f_m(z) = f(z - m): the two models compute the same in
    every layer, so a method that explains the model gives the same map. High is good, 1 is
    invariant; a method whose baseline stays where it was, or that multiplies by the input, is not.

    Args:
        similarity: compares two maps.
        shift: m, added to every value of the input.

    References:
        Kindermans et al. 2017, arXiv 1711.00867.
    """

    family = "sanity"
    summary = "similarity with the map of a shifted input by a model that shifts it back"
    reference = "Kindermans et al. 2017, arXiv 1711.00867"
    traits = ("other_models",)
    bounds = (-1, 1)
    needs = ("method",)
    passes = PassCount(1, 0)
    explanations = 1
    undefined_where = "the map of the shifted input is the same everywhere"

    shift: Number = -1.0

    def _measure(self, context: EvalContext) -> Measurement:
        module = hookable_copy(context.evaluator, context.inputs)
        module.register_forward_pre_hook(partial(_shift_back, self.shift))
        shifted = context.evaluator.with_model(module)
        maps = context.explain(context.inputs + self.shift, shifted)
        return Measurement(self._similarity(context.values, maps))


def _shift_back(shift: float, _: nn.Module, given: Any) -> Any:
    return given[0] - shift, *given[1:]


metrics.add_metric("input_invariance", InputInvariance)

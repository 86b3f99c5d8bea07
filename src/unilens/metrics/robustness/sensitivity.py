"""How much the map moves for small random moves of the input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..._ops.precision import l2_norm, to_float64
from ..._validation.settings import Count, Positive
from ..base import Metric
from ..cache import settings_key
from ..context import EvalContext
from ..maps import constant
from ..measurement import Measurement
from ..registry import metrics


@dataclass(frozen=True)
class NeighbourSensitivity(Metric):
    """The base of metrics that explain random neighbours of the input.

    A neighbour is x + d, every d_i uniform in [-r, r]; the target is fixed at x, and neither the
    input box nor the predicted label is checked, as in the papers.

    Args:
        radius: r, the largest change of a single value, in the inputs' units.
        samples: how many neighbours are drawn.
    """

    family = "robustness"
    deterministic = False
    higher_is_better = False
    bounds = (0, None)
    needs = ("method",)

    radius: Positive = 0.02
    samples: Count = 10

    @property
    def explanations(self) -> int:
        """How many maps are made anew per input."""
        return self.samples

    @abstractmethod
    def _value(self, context: EvalContext, moved: Tensor, distance: Tensor) -> Tensor:
        """Return the values `(B,)`.

        Args:
            context: whose maps have moved.
            moved: `(B, samples)`, the l2 distance of each neighbour's map from the input's.
            distance: `(B, samples)`, the l2 distance of each neighbour from the input.
        """

    def _measure(self, context: EvalContext) -> Measurement:
        key = "neighbours", type(self)._draw, settings_key(self)
        moved, distance = context.once_per_map(key, lambda: self._moves(context))
        details = {"moved": moved, "distance": distance}
        value = self._value(context, moved, distance)
        return Measurement(value.masked_fill(constant(context.values), torch.nan), {}, details)

    def _moves(self, context: EvalContext) -> tuple[Tensor, Tensor]:
        """Return how far the neighbours' maps and the neighbours are, `(B, samples)` both."""
        columns = []
        for neighbours in self._neighbours(context):
            moved = l2_norm(to_float64(context.explain(neighbours)) - to_float64(context.values))
            columns.append((moved, l2_norm(neighbours - context.inputs)))
        moved, distance = (torch.stack(one, dim=1) for one in zip(*columns, strict=True))
        return moved, distance

    def _neighbours(self, context: EvalContext) -> Iterator[Tensor]:
        """Yield neighbours `(B, *S)`, the same at every call."""
        generators = context.generators()
        for _ in range(self.samples):
            yield context.inputs + self._draw(context, generators)

    def _draw(self, context: EvalContext, generators: list[torch.Generator]) -> Tensor:
        shape = context.inputs.shape[1:]
        drawn = [torch.rand(shape, generator=one, dtype=torch.float64) for one in generators]
        return self.radius * (2 * torch.stack(drawn) - 1).to(context.inputs)


class MaxSensitivity(NeighbourSensitivity):
    """The farthest that the map moves, in its own lengths: max |A(x + d) - A(x)| / |A(x)|.

    Norms are l2 over all values. NaN where the map at x is constant.

    References:
        Yeh et al. 2019, arXiv 1901.09392, who do not divide by |A(x)|; their public code does.
    """

    summary = "the farthest that the map moves for random neighbours, in its own lengths"
    reference = "Yeh et al. 2019, arXiv 1901.09392"

    def _value(self, context: EvalContext, moved: Tensor, distance: Tensor) -> Tensor:
        return _relative(context, moved.amax(1))


class MeanSensitivity(NeighbourSensitivity):
    """How far the map moves on average, in its own lengths: mean |A(x + d) - A(x)| / |A(x)|.

    Norms are l2 over all values. NaN where the map at x is constant.

    References:
        The mean in place of the maximum of Yeh et al. 2019, arXiv 1901.09392.
    """

    summary = "how far the map moves on average for random neighbours, in its own lengths"
    reference = "Yeh et al. 2019, arXiv 1901.09392"

    def _value(self, context: EvalContext, moved: Tensor, distance: Tensor) -> Tensor:
        return _relative(context, moved.mean(1))


class LocalLipschitz(NeighbourSensitivity):
    """The steepest that the map moves: max |A(x + d) - A(x)| / |d|.

    Norms are l2 over all values, and the unit is that of the map per unit of the inputs: compare it
    between maps of one method, not between methods of other units. The paper searches for the
    maximum where the model can be differentiated; here as elsewhere it is that of the samples, a
    bound from below. NaN where the map at x is constant.

    References:
        Alvarez-Melis & Jaakkola 2018, arXiv 1806.08049.
    """

    summary = "the steepest that the map moves for random neighbours"
    reference = "Alvarez-Melis & Jaakkola 2018, arXiv 1806.08049"

    def _value(self, context: EvalContext, moved: Tensor, distance: Tensor) -> Tensor:
        return (moved / distance).amax(1)


def _relative(context: EvalContext, moved: Tensor) -> Tensor:
    return moved / l2_norm(context.values)


metrics.add_metric("max_sensitivity", MaxSensitivity)
metrics.add_metric("mean_sensitivity", MeanSensitivity)
metrics.add_metric("local_lipschitz", LocalLipschitz)

"""Controls: maps that do not depend on the model, which a method should outperform.

The model runs once at the inputs, so that the attribution has its target, score and outputs. The
values depend on neither model nor target.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._ops.luminance import check_pictures, edges
from .._ops.random import per_input, seed_for, standard_normal
from .._ops.spatial import broadcast_over_channels
from ..attribution import Attribution
from ..explainer import ExplainContext, Method
from ..registry import Card
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .base import methods


@dataclass(frozen=True)
class Control(Method):
    """Base of the controls.

    Args:
        score: recorded with the map, which it does not change; by name or as a function of logits
            and target.
    """

    passes = PassCount(1, 0)

    score: AnyScore = "probability"

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)(context.outputs, context.target)
        values = self._values(context.inputs, context.seed)
        return Attribution(values, context.target, score, context.outputs, complete=self.complete)

    @abstractmethod
    def _values(self, inputs: Tensor, seed: int) -> Tensor:
        """Return the values `(B, *S)`."""


@dataclass(frozen=True)
class RandomMap(Control):
    """Independent standard normal values, without a unit, drawn from the seed and the input.

    They rank the positions in a random order, and half of them are negative on average. Nothing
    else that draws from the same seed, such as a baseline or a metric, draws these values.

    Args:
        score: recorded with the map, which it does not change.

    References:
        Hooker et al. 2019, arXiv 1806.10758 (a random ranking as the control of a benchmark).

    Example:
        >>> inputs, models = torch.rand(1, 6), [torch.nn.Linear(6, 2).eval() for _ in range(2)]
        >>> first, second = (RandomMap()(model, inputs, seed=3).values for model in models)
        >>> torch.equal(first, second)
        True
    """

    def _values(self, inputs: Tensor, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed_for("control", seed))
        return per_input(inputs, generator, lambda own: standard_normal(inputs.shape[1:], own))


@dataclass(frozen=True)
class EdgeMap(Control):
    """The strength of an image's edges: the Sobel magnitude of its luminance, never negative.

    √((S_h² + S_v²) / 32), where S_h and S_v are the sums of 3 x 3 luminances with the Sobel weights
    and the border pixels are repeated outwards. The map is in units of the pixels, and divided
    evenly among the channels.

    Args:
        score: recorded with the map, which it does not change.

    References:
        Adebayo et al. 2018, arXiv 1810.03292 (maps compared with an edge detector); Hooker et al.
        2019, arXiv 1806.10758 (a Sobel filter as a control).

    Example:
        >>> step = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(1, 1, 4, 4)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
        >>> EdgeMap()(model, step).values[0, 0, 0]
        tensor([0.0000, 0.7071, 0.7071, 0.0000])
    """

    reads_axes_from: ClassVar[int] = 3

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the inputs are images."""
        check_pictures(inputs, "other inputs have no edges; use method='random'")

    def _values(self, inputs: Tensor, seed: int) -> Tensor:
        return broadcast_over_channels(edges(inputs), inputs)


methods.add(
    Card(
        "random",
        "control",
        "control: random normal values, independent of the model",
        "Hooker et al. 2019, arXiv 1806.10758",
        deterministic=False,
    ),
    RandomMap,
)
methods.add(
    Card(
        "edges",
        "control",
        "control: the strength of the image's edges, independent of the model",
        "Adebayo et al. 2018, arXiv 1810.03292",
        traits=("pictures",),
    ),
    EdgeMap,
)

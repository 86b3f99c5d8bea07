"""The way that the search for the baseline took, walked back."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.score_gradient import ScoreGradient
from .._ops.precision import wide
from .._validation.settings import Settings
from ..baselines.base import Found
from ..errors import UnilensError, require
from ..quadrature import Quadrature
from ..registry import Card
from .base import Leg, along, paths

_NO_WALK = (
    "expected a baseline that keeps its walk for path='walked', such as baseline='adversarial'; "
    "use path='straight'"
)


@dataclass(frozen=True)
class Walked(Settings):
    """Walk back from the baseline to the input over the points of the search for the baseline.

    The corners lie at equal fractions. With as many steps as the search took and the right rule,
    the gradient at each of its points is multiplied by the step taken from there.

    References:
        Pan, Li, Zhu, "Explaining Deep Neural Network Models with Adversarial Gradient
        Integration", IJCAI 2021.
    """

    def accepts(self, baseline: object) -> None:
        """Raise unless a baseline keeps its walk; of a plain function that is seen later."""
        if not (getattr(baseline, "walks", False) or inspect.isroutine(baseline)):
            raise UnilensError(_NO_WALK)

    def __call__(
        self, gradient: ScoreGradient, start: Found, end: Tensor, quadrature: Quadrature
    ) -> Iterator[Leg]:
        """Yield the legs from start to end; see `Path`."""
        walk = start.walk
        if walk is None:
            raise UnilensError(_NO_WALK)
        require(
            len(walk) > 1 and walk.shape[1:] == end.shape,
            f"expected a walk of two points or more, each of shape {tuple(end.shape)}, got "
            f"{tuple(walk.shape)}; keep both ends, the baseline and the input, in Found.walk",
        )
        segments = len(walk) - 1

        def curve(fraction: Tensor) -> Tensor:
            at = wide(fraction) * segments
            at = torch.where((at - at.round()).abs() < 1e-6 * segments, at.round(), at)
            first = (at.ceil().long() - 1).clamp_min(0)
            rest = (at - first).to(end).view(-1, *(1 for _ in end.shape))
            return walk[first] + rest * (walk[first + 1] - walk[first])

        return along(gradient, curve, end, quadrature)


paths.add(
    Card(
        "walked",
        "adversarial",
        "the way that the search for the baseline took (AGI)",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
    ),
    Walked,
)

"""How much of a map lies in the tangent space of the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .._ops.precision import to_float64
from ..manifold import Manifold, as_manifold, check_manifold_name
from ..manifold.tangent import spaces_at
from .base import Metric
from .context import EvalContext
from .measurement import Measurement
from .registry import metrics


@dataclass(frozen=True)
class TangentAlignment(Metric):
    """Say how much of the map lies in the tangent space of the data's manifold at the input.

    mu = |P v| / |v|, P the projection onto the tangent space. The breakdown: `random`, what a
    random map scores, sqrt(k / d) with k the tangent space's rank and d the input's values;
    `ratio`, mu over it; `rank`, k. NaN where the map is 0 or where there is no tangent direction.
    It says nothing of the model: a map can be tangential and wrong.

    Args:
        manifold: "transformations", which needs no data; a file of `unilens manifold fit`;
            `py:package.module:function`; or a `Manifold`.

    References:
        Simpson et al. 2024, arXiv 2503.08240; Bordt et al. 2022, arXiv 2206.07387.
    """

    family = "manifold"
    summary = "how much of the map lies in the tangent space of the data"
    reference = "Simpson et al. 2024, arXiv 2503.08240"
    bounds = (0, 1)
    undefined_where = "the map is zero, or there is no tangent direction at this input"

    manifold: Manifold | str | Path = "transformations"

    def __post_init__(self) -> None:
        check_manifold_name(self.manifold)

    def _measure(self, context: EvalContext) -> Measurement:
        manifold = as_manifold(self.manifold)
        space = context.once(
            ("tangent spaces", manifold), lambda: spaces_at(manifold, context.inputs)
        )
        content, random = space.content(context.values), space.random_level
        breakdown = {"random": random, "ratio": content / random, "rank": to_float64(space.rank)}
        return Measurement(content, breakdown)


metrics.add_metric("tangent_alignment", TangentAlignment)

"""The straight line from the baseline to the input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from .._engine.score_gradient import ScoreGradient
from ..baselines.base import BaselineResult
from ..quadrature import Quadrature
from ..registry import Card
from .base import Path, PathChunk, paths


@dataclass(frozen=True)
class StraightLine(Path):
    """Walk along start + t (end - start), t in [0, 1].

    It takes nodes and weights `(n_steps, B)` of every input's own as well.
    """

    @property
    def takes_nodes_per_input(self) -> bool:
        """True: every input may have nodes of its own."""
        return True

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks from start to end; see `Path`."""
        direction = end - start.values
        for fraction, weight in gradient.blocks(end, quadrature.nodes, quadrature.weights):
            points = start.values + fraction * direction
            where = fraction.flatten(1)
            where = where if quadrature.nodes.ndim == 2 else where.squeeze(1)
            yield PathChunk(where, points, gradient(points), weight * direction)


paths.add(
    Card(
        "straight",
        "straight",
        "the straight line (integrated gradients)",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    StraightLine,
)

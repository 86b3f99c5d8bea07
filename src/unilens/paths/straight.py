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
    """The straight line start + t (end - start), t in [0, 1].

    Nodes and weights may be `(n_steps,)`, or `(n_steps, B)` with separate ones for each input.
    """

    takes_nodes_per_input = True

    def __call__(
        self, gradient: ScoreGradient, start: BaselineResult, end: Tensor, quadrature: Quadrature
    ) -> Iterator[PathChunk]:
        """Yield the chunks from start to end; see `Path`."""
        direction = end - start.values
        for fraction, weight in gradient.blocks(end, quadrature.nodes, quadrature.weights):
            points = start.values + fraction * direction
            positions = fraction.flatten(1)
            positions = positions if quadrature.nodes.ndim == 2 else positions.squeeze(1)
            yield PathChunk(positions, points, gradient(points), weight * direction)


paths.add(
    Card(
        "straight",
        "straight",
        "the straight line (integrated gradients)",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    StraightLine,
)

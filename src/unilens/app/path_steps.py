"""The path from the baseline to the photograph, at the stops of a slider."""

from __future__ import annotations

from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from ..attribution import Attribution
from ..methods.path_diagnostics import path_steps as steps_of_path
from ..path_attribution import PathAttribution

N_STOPS = 17
STOPS = [stop / (N_STOPS - 1) for stop in range(N_STOPS)]
"""Fractions of the path at which the slider stops, both ends included."""
MAX_STEPS = 200
"""Of a path that is shown: all its steps are in memory for a moment."""


@dataclass(frozen=True)
class PathSteps:
    """A path at the stops of the slider.

    Attributes:
        points: what the model sees at each stop, each `(3, H, W)`.
        sums: the map summed up to each stop, each `(3, H, W)`.
        positions: where on the path the points lie: at a stop, or shortly before it.
        fractions: where on the path the confidences were measured, ascending, from 0 to 1.
        confidences: confidence in the target there.
    """

    points: list[Tensor]
    sums: list[Tensor]
    positions: list[float]
    fractions: list[float]
    confidences: list[float]

    @property
    def peak(self) -> tuple[float, float]:
        """Where the confidence is highest, and how high it is there."""
        best = max(range(len(self.confidences)), key=self.confidences.__getitem__)
        return self.fractions[best], self.confidences[best]

    @property
    def shown(self) -> list[float]:
        """Confidence in the target at each of the points."""
        shown: list[float] = numpy.interp(self.positions, self.fractions, self.confidences).tolist()
        return shown


def path_steps(
    explainer: PathAttribution, evaluator: Evaluator, pixels: Tensor, attribution: Attribution
) -> PathSteps:
    """Return a path as the slider shows it.

    A stop between two steps shows the earlier one. The ends are the baseline, where the sum is
    zero, and the photograph with the whole map.

    Args:
        explainer: the path method.
        evaluator: runs the model.
        pixels: the photograph `(3, H, W)`.
        attribution: its map, with baseline and trace.

    Raises:
        NotApplicableError: the method has no single path from one baseline.
    """
    steps = steps_of_path(explainer, evaluator, pixels[None], attribution)
    assert attribution.baseline is not None
    assert attribution.trace is not None
    points = [attribution.baseline[0], *(point[0] for point in steps.points), pixels]
    sums = [torch.zeros_like(pixels), *(total[0] for total in steps.sums), attribution.values[0]]
    fractions = [0.0, *(float(fraction.flatten()[0]) for fraction in steps.fractions), 1.0]
    chosen = [
        max(index for index, fraction in enumerate(fractions) if fraction <= stop + 1e-6)
        for stop in STOPS
    ]
    chosen[0] = 0
    return PathSteps(
        [points[index].cpu() for index in chosen],
        [sums[index].cpu() for index in chosen],
        [fractions[index] for index in chosen],
        attribution.trace.fraction[:, 0].tolist(),
        attribution.trace.confidence[:, 0].tolist(),
    )

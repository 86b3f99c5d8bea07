"""The way from the baseline to the photograph, as pictures that a slider walks along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from ..attribution import Attribution
from ..methods.path_diagnostics import path_steps
from ..path_attribution import PathAttribution

STOPS = 17
"""Places of the slider, both ends included."""
MOST_STEPS = 200
"""Of a path that is shown: every step is kept in memory for a moment."""


@dataclass(frozen=True)
class Journey:
    """A path at evenly spread places.

    Attributes:
        points: what the model sees at each place, each `(3, H, W)`.
        sums: the map as far as it is added up there, each `(3, H, W)`.
        fractions: where on the path the confidences were taken, ascending, 0 and 1 included.
        confidences: of the target there.
    """

    points: list[Tensor]
    sums: list[Tensor]
    fractions: list[float]
    confidences: list[float]

    @property
    def peak(self) -> tuple[float, float]:
        """Where the confidence is highest, and how high that is."""
        best = max(range(len(self.confidences)), key=self.confidences.__getitem__)
        return self.fractions[best], self.confidences[best]


def places() -> list[float]:
    """Return the fractions of the path at which the slider stops."""
    return [stop / (STOPS - 1) for stop in range(STOPS)]


def journey(
    explainer: PathAttribution, evaluator: Evaluator, pixels: Tensor, attribution: Attribution
) -> Journey:
    """Return a path as the slider shows it.

    At a place between two steps it is the last step before it that is shown; the ends are the
    baseline, where nothing is summed yet, and the photograph with the whole map.
    """
    steps = path_steps(explainer, evaluator, pixels[None], attribution)
    assert attribution.baseline is not None
    assert attribution.trace is not None
    points = [attribution.baseline[0], *(point[0] for point in steps.points), pixels]
    sums = [torch.zeros_like(pixels), *(total[0] for total in steps.sums), attribution.values[0]]
    where = [0.0, *(float(fraction.flatten()[0]) for fraction in steps.fractions), 1.0]
    chosen = [max(i for i, one in enumerate(where) if one <= place + 1e-6) for place in places()]
    chosen[0] = 0
    return Journey(
        [points[i].cpu() for i in chosen],
        [sums[i].cpu() for i in chosen],
        attribution.trace.fraction[:, 0].tolist(),
        attribution.trace.confidence[:, 0].tolist(),
    )

"""Scores of inputs with masked positions: forward passes only, so that any model will do.

A position is a pixel, a sample of a signal or a feature of a table; it is masked in all channels
together. A map of positions is divided evenly among the channels, so that they sum to the map.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._ops.precision import to_float64
from ..._ops.spatial import broadcast_over_channels, spatial_shape_of
from ...attribution import Attribution
from ...baselines import Baseline, Constant, baselines
from ...baselines.base import check_single, to_baseline
from ...diagnostics import proximity
from ...errors import NotApplicableError
from ...explainer import ExplainContext, Method
from ...registry import Card, Composed
from ...scores import AnyScore, Score
from ...scores import resolve as resolve_score
from ..base import methods

_PHOTOGRAPH = torch.Size((3, 224, 224))


@dataclass(frozen=True)
class MaskingMethod(Method):
    """Base of the methods that mask positions of the input and measure the score.

    Args:
        baseline: its values replace those of masked positions.
        score: what is explained, by name or as a function of logits and target.
    """

    reads_axes_from: ClassVar[int] = 3
    baseline: Baseline = field(default_factory=Constant)
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", to_baseline(self.baseline))

    @property
    def passes(self) -> PassCount:
        """Passes for an image of 224 x 224 pixels; every attribution records its own."""
        return self._passes(_PHOTOGRAPH)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless inputs are images, signals, volumes or tables."""
        if not 2 <= inputs.ndim <= 5:
            raise NotApplicableError(
                f"{type(self).__name__} expects images (B, C, H, W), signals (B, C, L), volumes or "
                f"clips (B, C, D, H, W), or tables (B, F), got {tuple(inputs.shape)}; use "
                "method='ig'"
            )
        shapes = {} if model.input_spec is None else model.input_spec.shapes
        grids = [f"{name} {tuple(shape)}" for name, shape in shapes.items() if len(shape) > 1]
        if grids:
            raise NotApplicableError(
                f"{type(self).__name__} masks the features of several inputs (B, F), got "
                f"{', '.join(grids)}; use method='ig'"
            )
        check_single(self.baseline)
        self.baseline.check(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        result = context.single_baseline(self.baseline)
        masked = MaskedScores(context, result.values, resolve_score(self.score, context.evaluator))
        attribution = Attribution(
            values=broadcast_over_channels(self._map(masked), context.inputs),
            target=context.target,
            score=masked.score_of(context.outputs),
            outputs=context.outputs,
            baseline=result.values,
            record=result.record,
            measured={"proximity": proximity(context.inputs, result.values)},
            complete=self.complete,
        )
        passes = self._passes(context.inputs.shape[1:])
        return attribution.with_provenance(passes=passes._asdict())

    def _passes(self, shape: torch.Size) -> PassCount:
        return self.baseline.passes + PassCount(1 + self._points(shape), 0)

    @abstractmethod
    def _points(self, shape: torch.Size) -> int:
        """Return how many masked points an input of shape `*S` takes."""

    @abstractmethod
    def _map(self, masked: MaskedScores) -> Tensor:
        """Return the maps `(B, *spatial_shape)`."""


@dataclass(frozen=True, slots=True)
class MaskedScores:
    """The scores of inputs whose masked positions have the baseline's values."""

    context: ExplainContext
    baseline: Tensor
    score: Score

    @property
    def shape(self) -> torch.Size:
        """The shape `*S` of one input."""
        return self.context.inputs.shape[1:]

    def zeros(self) -> Tensor:
        """Return maps of zeros `(B, *spatial_shape)` in float64."""
        return to_float64(self.context.inputs).new_zeros(
            len(self.context.inputs), *spatial_shape_of(self.shape)
        )

    def blocks(self, points: int) -> Iterator[Tensor]:
        """Yield the indices of the points, in blocks that fit into memory."""
        together = self.context.evaluator.points_at_once(self.context.inputs)
        yield from torch.arange(points).split(together)

    def score_of(self, outputs: Tensor) -> Tensor:
        """Return the scores `(..., B)` of outputs `(..., B, K)`."""
        rows = outputs.flatten(0, -2)
        target = self.context.target.repeat(len(rows) // len(self.context.target))
        return self.score(rows, target).view(outputs.shape[:-1])

    def scores(self, kept: Tensor) -> Tensor:
        """Return the scores `(n, B)` of mixtures of inputs and baseline.

        Args:
            kept: `(n, *spatial_shape)`, the share of the input at each position; the baseline has
                the rest. The mixture is exact for shares of 0 and 1.
        """
        inputs = self.context.inputs
        channels = (1,) * (inputs.ndim - kept.ndim)
        share = kept.to(inputs).view(len(kept), 1, *channels, *kept.shape[1:])
        points = share * inputs + (1 - share) * self.baseline
        return self.score_of(self.context.evaluator.outputs(points))


def add_masking_method(card: Card, build: Callable[..., Method]) -> None:
    """Register a masking method; its settings include a baseline and the baseline's settings."""
    methods.register(Composed(card, build, {"baseline": baselines}, {"baseline": "black"}))

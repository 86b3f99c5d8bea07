"""Scores, confidences and gradient changes along a path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._engine.evaluator import Evaluation
from .._ops.precision import l2_norm, to_float64
from ..outputs import LOGITS, OutputSpec


@dataclass(frozen=True, slots=True)
class Trace:
    """Scores, confidences and gradient changes along a path, both ends included.

    Attributes:
        fraction: `(P, B)`, ascending from 0 (the baseline) to 1 (the input).
        score: `(P, B)`, in units of the score.
        confidence: `(P, B)`, the target's probability; the score itself where the outputs have no
            probabilities.
        gradient_change: `(B,)`, M: the largest change of the gradient per l2 distance between
            neighbouring steps, a finite-difference estimate of the curvature along the path; NaN
            with a single step.
    """

    fraction: Tensor = field(metadata={"input_dimension": 1})
    score: Tensor = field(metadata={"input_dimension": 1})
    confidence: Tensor = field(metadata={"input_dimension": 1})
    gradient_change: Tensor


def mean_trace(traces: Sequence[Trace], weights: Sequence[Tensor]) -> Trace:
    """Return the weighted mean of traces from several baselines, with the largest gradient change.

    Traces are interpolated linearly at the fractions of the first one.

    Args:
        traces: of the same inputs.
        weights: `(B,)` for each trace; they sum to one.
    """

    def mean(columns: Sequence[Tensor]) -> Tensor:
        weighted = [column * weight for column, weight in zip(columns, weights, strict=True)]
        return torch.stack(weighted).sum(0)

    if len(traces) == 1:
        return traces[0]
    return Trace(
        traces[0].fraction,
        mean([_interpolate(traces[0].fraction, trace, trace.score) for trace in traces]),
        mean([_interpolate(traces[0].fraction, trace, trace.confidence) for trace in traces]),
        torch.stack([trace.gradient_change for trace in traces]).amax(0),
    )


def _interpolate(fraction: Tensor, trace: Trace, values: Tensor) -> Tensor:
    """Return the values `(P, B)` of a trace interpolated at fractions `(Q, B)`."""
    if torch.equal(fraction, trace.fraction):
        return values
    known, queried = trace.fraction.T.contiguous(), fraction.T.contiguous()
    after = torch.searchsorted(known, queried).clamp(1, known.shape[1] - 1)
    ends = [column.gather(1, after + step) for column in (known, values.T) for step in (-1, 0)]
    first, last, low, high = ends
    share = torch.where(last > first, (queried - first) / (last - first), 1.0)
    return (low + share * (high - low)).T


class Recorder:
    """Collect the trace of a path from its chunks.

    Args:
        target: `(B,)`.
        spec: the kind of the model's outputs.
    """

    def __init__(self, target: Tensor, spec: OutputSpec = LOGITS) -> None:
        self._target, self._spec = target, spec
        self._fractions: list[Tensor] = []
        self._scores: list[Tensor] = []
        self._confidences: list[Tensor] = []
        self._changes: list[Tensor] = []
        self._last: tuple[Tensor, Tensor] | None = None
        self._common = False

    def end(self, fraction: float, outputs: Tensor, score: Tensor) -> None:
        """Record outputs `(B, K)` and scores `(B,)` at an end of the path, fraction 0 or 1."""
        self._add(
            torch.tensor([fraction], dtype=torch.float32), outputs.unsqueeze(0), score.unsqueeze(0)
        )

    def chunk(self, fraction: Tensor, points: Tensor, evaluation: Evaluation) -> None:
        """Record the evaluation at the points `(n, B, *S)` of a chunk; see `PathChunk`."""
        self._add(fraction, evaluation.outputs, evaluation.values)
        for node in zip(points.detach(), evaluation.gradients.detach(), strict=True):
            if self._last is not None:
                self._changes.append(_gradient_change(*self._last, *node))
            self._last = node

    def partial_sum(self, values: Tensor) -> None:
        """Note the map `(B, *S)` summed up to the last step; the trace does not need it."""

    def _add(self, fraction: Tensor, outputs: Tensor, score: Tensor) -> None:
        common = fraction.ndim == 1  # nodes that differ between inputs are all kept
        columns = fraction.unsqueeze(1) if common else fraction
        fraction = columns.to(score.device, score.dtype).expand_as(score)
        repeated = self._common and common and bool(fraction[0, 0] == self._fractions[-1][-1, 0])
        self._common = common
        if repeated:
            fraction, outputs, score = fraction[1:], outputs[1:], score[1:]
        if not len(fraction):
            return
        self._fractions.append(fraction)
        self._scores.append(score.detach())
        confidence = score
        if self._spec.has_probabilities:
            confidence = self._spec.confidence(outputs, self._target.expand(outputs.shape[:-1]))
        self._confidences.append(confidence.detach())

    def trace(self) -> Trace:
        """Return the trace of everything recorded so far."""
        scores = torch.cat(self._scores)
        changes = torch.stack([torch.full_like(to_float64(scores[0]), -torch.inf), *self._changes])
        largest = changes.amax(0)
        return Trace(
            fraction=torch.cat(self._fractions),
            score=scores,
            confidence=torch.cat(self._confidences),
            gradient_change=largest.masked_fill(largest == -torch.inf, torch.nan),
        )


def _gradient_change(
    point: Tensor, gradient: Tensor, next_point: Tensor, next_gradient: Tensor
) -> Tensor:
    """Return `|dg| / |dp|` between two points `(B, *S)`; minus infinity where they are the same."""
    distance = l2_norm(next_point - point)
    return torch.where(distance > 0, l2_norm(next_gradient - gradient) / distance, -torch.inf)

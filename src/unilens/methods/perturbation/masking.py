"""Scores of inputs with masked positions: forward passes only, so that any model will do.

A position is a pixel, a sample of a signal or a feature of a table; it is masked in all channels
together. A map of positions is divided evenly among the channels, so that they sum to the map.
Where there are groups of values, a whole group is masked at once.
"""

from __future__ import annotations

import dataclasses
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
from ...groups.base import Groups
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
    grid_settings: ClassVar[tuple[str, ...]] = ()
    """The settings that say what is masked where there are no groups."""
    baseline: Baseline = field(default_factory=Constant)
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        object.__setattr__(self, "baseline", to_baseline(self.baseline))

    @property
    def passes(self) -> PassCount:
        """Passes for an image of 224 x 224 pixels; every attribution records its own."""
        return self._passes(self._points(_PHOTOGRAPH))

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
        groups = self._groups(context)
        result = context.single_baseline(self.baseline)
        score = resolve_score(self.score, context.evaluator)
        masked = MaskedScores(context, result.values, score)
        if self.complete:
            masked = masked.with_baseline_score()
        attribution = Attribution(
            values=context.inputs,  # the map takes their place
            target=context.target,
            score=masked.score_of(context.outputs),
            outputs=context.outputs,
            baseline=result.values,
            baseline_score=masked.baseline_score,
            record=result.record,
            measured={"proximity": proximity(context.inputs, result.values)},
            complete=self.complete,
        )
        if groups is not None:
            return self._by_group(attribution, masked, groups)
        values = broadcast_over_channels(self._map(masked), context.inputs)
        passes = self._passes(self._points(context.inputs.shape[1:]))
        return dataclasses.replace(attribution, values=values).with_provenance(
            passes=passes._asdict()
        )

    def _by_group(
        self, attribution: Attribution, masked: MaskedScores, groups: Groups
    ) -> Attribution:
        """Return the attribution with values and measurements by group."""
        columns: dict[str, Tensor] = {}
        most, inputs = 0, masked.context.inputs
        for rows, index, numbers in groups.by_count(len(inputs)):
            scores = GroupScores(masked.of_rows(rows), index, numbers.shape[1])
            most = max(most, self._group_points(scores.count))
            for name, values in self._group_sums(scores).items():
                column = values.new_full((len(inputs), groups.count), torch.nan)
                column = columns.setdefault(name, column)
                column[rows.unsqueeze(1), numbers] = values
        return dataclasses.replace(
            attribution,
            values=groups.spread(columns.pop("sums"), inputs),
            groups=groups.of(inputs).clone(),
            record={**attribution.record, **columns},
        ).with_provenance(passes=self._passes(most)._asdict(), groups={"count": groups.count})

    def _groups(self, context: ExplainContext) -> Groups | None:
        """Return the groups that are masked; None to mask positions."""
        if context.groups is None:
            return None
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        given = [name for name in self.grid_settings if getattr(self, name) != defaults[name]]
        if given:
            raise NotApplicableError(
                f"expected no {' and '.join(given)} beside groups, which are masked as they are; "
                "leave one of them out"
            )
        return context.groups

    def _passes(self, points: int) -> PassCount:
        return self.baseline.passes + PassCount(1 + points, 0)

    @abstractmethod
    def _points(self, shape: torch.Size) -> int:
        """Return how many masked points an input of shape `*S` takes."""

    @abstractmethod
    def _map(self, masked: MaskedScores) -> Tensor:
        """Return the maps `(B, *spatial_shape)`."""

    @abstractmethod
    def _group_points(self, count: int) -> int:
        """Return how many masked points an input of `count` groups takes."""

    @abstractmethod
    def _group_sums(self, groups: GroupScores) -> dict[str, Tensor]:
        """Return the groups' values `(m, g)`, named "sums", and measurements of them by name."""


@dataclass(frozen=True, slots=True)
class MaskedScores:
    """The scores of inputs whose masked values are the baseline's."""

    context: ExplainContext
    baseline: Tensor
    score: Score
    baseline_score: Tensor | None = None

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
        if points:
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
            kept: `(n, *spatial_shape)` or `(n, 1|B, 1|C, *spatial_shape)`, whether a value is the
                input's, or the share of the input in it; the baseline has the rest. The mixture is
                exact for shares of 0 and 1.
        """
        inputs, kept = self.context.inputs, kept.to(self.context.inputs.device)
        if kept.ndim <= inputs.ndim:
            channels = (1,) * (inputs.ndim - kept.ndim)
            kept = kept.view(len(kept), 1, *channels, *kept.shape[1:])
        if kept.dtype == torch.bool:
            points = torch.where(kept, inputs, self.baseline)
        else:
            share = kept.to(inputs)
            points = share * inputs + (1 - share) * self.baseline
        return self.score_of(self.context.evaluator.outputs(points))

    def of_rows(self, rows: Tensor) -> MaskedScores:
        """Return the scores of some of the inputs, by their numbers `(m,)`."""
        context = dataclasses.replace(
            self.context,
            inputs=self.context.inputs[rows],
            outputs=self.context.outputs[rows],
            target=self.context.target[rows],
        )
        known = None if self.baseline_score is None else self.baseline_score[rows]
        return MaskedScores(context, self.baseline[rows], self.score, known)

    def with_baseline_score(self) -> MaskedScores:
        """Return a copy that knows the score `(B,)` of the baseline."""
        outputs = self.context.evaluator.outputs(self.baseline.unsqueeze(0))
        return dataclasses.replace(self, baseline_score=self.score_of(outputs)[0])


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The scores of inputs that have equally many groups, with whole groups masked.

    Attributes:
        masked: the scores of these inputs.
        index: `(1|m, 1|C, *spatial)`, the number of each value's group.
        count: g, the number of groups of an input.
    """

    masked: MaskedScores
    index: Tensor
    count: int

    @property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The scores `(m,)` without any group and with all of them, in float64."""
        outputs, first = self.masked.context.outputs, self.masked.baseline_score
        assert first is not None
        return to_float64(first), to_float64(self.masked.score_of(outputs))

    def scores(self, points: int, kept: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the scores `(m, points)`, in float64.

        Args:
            points: how many.
            kept: from the points' numbers `(n,)` to the groups kept, or the shares of them,
                `(n, g)`.
        """
        inputs = self.masked.context.inputs
        found = [inputs.new_zeros(0, len(inputs))]
        for numbers in self.masked.blocks(points):
            groups = kept(numbers)
            groups = groups.to(
                inputs.device, groups.dtype if groups.dtype == torch.bool else inputs.dtype
            )
            found.append(self.masked.scores(groups[:, self.index]))
        return to_float64(torch.cat(found)).T.contiguous()  # sums as in any batch


def add_masking_method(card: Card, build: Callable[..., Method]) -> None:
    """Register a masking method; its settings include a baseline and the baseline's settings."""
    methods.register(Composed(card, build, {"baseline": baselines}, {"baseline": "black"}))

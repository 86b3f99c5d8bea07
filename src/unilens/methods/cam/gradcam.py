"""Grad-CAM, and its product with guided backpropagation."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..._engine.balanced import AnyBalanced, attention_rule
from ..._engine.evaluator import Evaluator, PassCount
from ..._engine.plans import MODEL_ERRORS
from ..._validation.models import not_differentiable
from ...attribution import Attribution
from ...errors import NotApplicableError, first_line, require
from ...explainer import ExplainContext, Method
from ...registry import Card
from ...scores import AnyScore, Score
from ...scores import resolve as resolve_score
from ..backprop_rules import GuidedBackprop
from ..base import methods
from .grids import Grid, enlarge, record_grids


@dataclass(frozen=True)
class GradCAM(Method):
    """Grad-CAM: a layer's channels, each weighted by the mean gradient of the score in it.

    The map has the layer's resolution; it is enlarged linearly to the input and divided evenly
    among the channels, so that they sum to the map. The provenance names the layer of every input.

    Args:
        layer: its name in `model.named_modules()`; None for the last layer to run whose output is a
            grid of spatial positions that the score depends on. In a vision transformer that pools
            by the class token this lies before the last attention.
        relu: set negative values, which lower the score, to zero.
        score: what is explained, by name or as a function of logits and target.
        balanced: whether the gradients are balanced, as in `unilens.methods.Gradient`.

    References:
        Selvaraju et al. 2017, arXiv 1610.02391.
    """

    reads_axes_from: ClassVar[int] = 3
    passes = PassCount(2, 1)  # the check takes one more, at the first input
    layer: str | None = None
    relu: bool = True
    score: AnyScore = "probability"
    balanced: AnyBalanced = False

    def __post_init__(self) -> None:
        require(
            self.layer is None or isinstance(self.layer, str),
            f"expected layer to be the name of a module, got {self.layer!r}",
        )

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the layer, or some layer, gives a spatial grid."""
        record_grids(model, self.layer, inputs[:1])

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        pairs = context.evaluator.for_each(
            len(context.inputs), functools.partial(self._explain_row, context, score)
        )
        attribution = Attribution(
            values=torch.cat([enlarge(cam, context.inputs) for _, cam in pairs]),
            target=context.target,
            score=score(context.outputs, context.target),
            outputs=context.outputs,
            complete=self.complete,
        )
        return attribution.with_provenance(layers=[name for name, _ in pairs])

    def _explain_row(self, context: ExplainContext, score: Score, row: int) -> tuple[str, Tensor]:
        """Return the layer's name and the map `(1, 1, *grid)` of one input."""
        rows = slice(row, row + 1)
        outputs, grids = record_grids(
            context.evaluator, self.layer, context.inputs[rows], attention_rule(self.balanced)
        )
        with torch.enable_grad():
            value = score(outputs, context.target[rows]).sum()
        if not value.requires_grad:
            raise not_differentiable(context.evaluator.model, within="layers")
        gradients = _gradients(context.evaluator.model, value, [grid.output for grid in grids])
        grid, gradient = _last_with_influence(grids, gradients)
        _refuse_parallel_calls([other for other in grids if other.name == grid.name])
        weights = gradient.mean(tuple(range(2, gradient.ndim)), keepdim=True)
        cam = (weights * grid.read(grid.output.detach())).sum(1, keepdim=True)
        return grid.name, cam.relu() if self.relu else cam


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided Grad-CAM: guided backpropagation, multiplied at every position by the Grad-CAM map.

    The provenance names the layer of every input.

    Args:
        layer: of the Grad-CAM map; see `GradCAM`.
        score: what is explained, by name or as a function of logits and target.

    References:
        Selvaraju et al. 2017, arXiv 1610.02391.
    """

    reads_axes_from: ClassVar[int] = 3
    passes = PassCount(3, 2)  # the check takes more, at the first input
    layer: str | None = None
    score: AnyScore = "probability"

    def __post_init__(self) -> None:
        GradCAM(self.layer, score=self.score)  # checks the settings

    @property
    def _factors(self) -> tuple[GradCAM, GuidedBackprop]:
        return GradCAM(self.layer, score=self.score), GuidedBackprop(self.score)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where one of the two methods does."""
        for method in self._factors:
            method.check(model, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        cam, guided = (method._explain(context) for method in self._factors)
        return dataclasses.replace(cam, values=guided.values * cam.values.sum(1, keepdim=True))


def _gradients(model: nn.Module, value: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the gradients of a score in layers' outputs; zero in outputs that it does not use."""
    try:
        gradients = torch.autograd.grad(value, outputs, allow_unused=True, retain_graph=True)
    except MODEL_ERRORS as error:
        raise not_differentiable(model, first_line(error), "layers") from error
    if all(gradient is None for gradient in gradients):
        raise not_differentiable(model, "a score that depends on none of them", "layers")
    pairs = zip(gradients, outputs, strict=True)
    return [torch.zeros_like(output) if slope is None else slope for slope, output in pairs]


def _last_with_influence(grids: Sequence[Grid], gradients: Sequence[Tensor]) -> tuple[Grid, Tensor]:
    """Return the last grid that the score depends on, and its gradient `(1, D, *spatial_shape)`.

    Where the gradients of all grids are zero it is the last grid, whose map is zero.
    """
    slopes = [grid.read(gradient) for grid, gradient in zip(grids, gradients, strict=True)]
    for grid, slope in zip(reversed(grids), reversed(slopes), strict=True):
        if slope.any():
            return grid, slope
    return grids[-1], slopes[-1]


def _refuse_parallel_calls(grids: Sequence[Grid]) -> None:
    """Raise where a layer runs several times in parallel, as on the halves of an input."""
    for first, second in itertools.pairwise(grids):
        (slope,) = torch.autograd.grad(
            second.output.sum(), first.output, allow_unused=True, retain_graph=True
        )
        if slope is None:
            raise NotApplicableError(
                f"Grad-CAM needs a layer that sees the whole input, but {first.name!r} runs "
                "several times in parallel; name another, or use method='ig'"
            )


methods.add(
    Card(
        "gradcam",
        "activation",
        "Grad-CAM: the channels of the last spatial grid, weighted by their mean gradient",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        traits=("layer",),
    ),
    GradCAM,
)
methods.add(
    Card(
        "guided_gradcam",
        "activation",
        "guided backpropagation, multiplied by the Grad-CAM map",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        traits=("layer",),
    ),
    GuidedGradCAM,
)

"""Relative stability: the change of the map over the change of the input, outputs or features."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..._engine.axes import users_module
from ..._engine.evaluator import PassCount
from ..._ops.precision import l2_norm, to_float64
from ...errors import NotApplicableError, UnknownNameError
from ..context import EvalContext
from ..maps import constant
from ..measurement import Measurement
from ..registry import metrics
from ..sanity.layers import hookable_copy, layer_order
from .perturbations import labels
from .sensitivity import NeighbourSensitivity

_LEAST = 1e-6
"""The least denominator."""


@dataclass(frozen=True)
class RelativeStability(NeighbourSensitivity):
    """The base of relative stability: how far the map moves, in units of what moves it.

    max over neighbours x' of the same predicted class of |(A(x') - A(x)) / A(x)| / max(D, 1e-6),
    divided value by value, l2 norms. Values at which A(x) is 0 are left out, as are those of D: no
    change is relative to 0. NaN where the map is constant, where no neighbour keeps the class, and
    where all of what D is relative to is 0.

    Args:
        radius: see `NeighbourSensitivity`.
        samples: see `NeighbourSensitivity`.
    """

    reference = "Agarwal et al. 2022, arXiv 2203.06877"
    undefined_where = "no neighbour keeps the class, or a change has nothing that it is relative to"

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, besides those of explanations."""
        return PassCount(1 + self.samples, 0)

    @abstractmethod
    def _distances(self, context: EvalContext, outputs: Tensor) -> Tensor:
        """Return D `(B, samples)`, how far what moves the map has moved.

        Args:
            context: whose inputs have neighbours.
            outputs: `(B, samples, K)`, the logits at the neighbours.
        """

    def _value(self, context: EvalContext, moved: Tensor, distance: Tensor) -> Tensor:
        return (moved / distance.clamp(min=_LEAST)).amax(1)

    def _measure(self, context: EvalContext) -> Measurement:
        key = "relative", self.radius, self.samples
        moved = context.once_per_map(key, lambda: self._map_changes(context))
        outputs = context.once(key, lambda: self._outputs(context))
        distance = self._distances(context, outputs)
        kept = self._kept(context, outputs)
        counted = moved.masked_fill(~kept, 0.0), distance.masked_fill(~kept, 1.0)
        undefined = constant(context.values) | ~kept.any(1)
        value = self._value(context, *counted).masked_fill(undefined, torch.nan)
        return Measurement(value, {}, {"moved": moved, "distance": distance, "kept": kept})

    def _map_changes(self, context: EvalContext) -> Tensor:
        """Return the relative changes of the map `(B, samples)`."""
        maps = (context.explain(neighbours) for neighbours in self._neighbours(context))
        return torch.stack([relative_change(context.values, one) for one in maps], dim=1)

    def _outputs(self, context: EvalContext) -> Tensor:
        outputs = [context.evaluator(neighbours) for neighbours in self._neighbours(context)]
        return torch.stack(outputs, dim=1)

    def _kept(self, context: EvalContext, outputs: Tensor) -> Tensor:
        """Return which neighbours keep the predicted class `(B, samples)`."""
        before = labels(context, context.outputs)
        return torch.stack([labels(context, one) == before for one in outputs.unbind(1)], dim=1)


def relative_change(before: Tensor, after: Tensor) -> Tensor:
    """Return |(after - before) / before|, l2, of `(B, ...)`, where before is not 0; NaN if nowhere.

    >>> relative_change(torch.tensor([[2.0, 0.0, -4.0]]), torch.tensor([[5.0, 1.0, -2.0]]))
    tensor([1.5811], dtype=torch.float64)
    """
    before, after = to_float64(before.flatten(1)), to_float64(after.flatten(1))
    there = before != 0
    change = ((after - before) / before).masked_fill(~there, 0.0)
    return l2_norm(change).masked_fill(~there.any(1), torch.nan)


class RelativeInputStability(RelativeStability):
    """RIS: the relative change of the map over that of the input, D = |(x' - x) / x|.

    References:
        Agarwal et al. 2022, arXiv 2203.06877.
    """

    summary = "relative change of the map over the relative change of the input"

    def _distances(self, context: EvalContext, outputs: Tensor) -> Tensor:
        neighbours = self._neighbours(context)
        return torch.stack([relative_change(context.inputs, one) for one in neighbours], dim=1)


class RelativeOutputStability(RelativeStability):
    """ROS: the relative change of the map over that of the logits, D = |f(x') - f(x)|.

    References:
        Agarwal et al. 2022, arXiv 2203.06877.
    """

    summary = "relative change of the map over the change of the logits"

    def _distances(self, context: EvalContext, outputs: Tensor) -> Tensor:
        return l2_norm(outputs - context.outputs.unsqueeze(1), batch_dims=2)


@dataclass(frozen=True)
class RelativeRepresentationStability(RelativeStability):
    """RRS: the relative change of the map over that of features, D = |(L(x') - L(x)) / L(x)|.

    Args:
        radius: see `NeighbourSensitivity`.
        samples: see `NeighbourSensitivity`.
        layer: whose output the features L are; None for the input of the last layer with weights.

    References:
        Agarwal et al. 2022, arXiv 2203.06877.
    """

    summary = "relative change of the map over the relative change of the features"

    layer: str | None = None

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, besides those of explanations."""
        return super().passes + PassCount(2 + self.samples, 1)

    def _distances(self, context: EvalContext, outputs: Tensor) -> Tensor:
        key = "features", self.layer, self.radius, self.samples
        return context.once(key, lambda: self._feature_changes(context))

    def _feature_changes(self, context: EvalContext) -> Tensor:
        features = FeatureReader(context, self.layer)
        before = features(context.inputs)
        neighbours = self._neighbours(context)
        return torch.stack([relative_change(before, features(one)) for one in neighbours], dim=1)


class FeatureReader:
    """Reads the features of a layer off a private copy of the model.

    Args:
        context: of the model.
        layer: whose output is read; None for the input of the last layer with weights.

    Raises:
        UnknownNameError: the model has no such layer.
        NotApplicableError: the layer is not called, or has no tensor there.
    """

    def __init__(self, context: EvalContext, layer: str | None) -> None:
        self._evaluator = context.evaluator
        self._module = hookable_copy(context.evaluator, context.inputs)
        self._read: list[Tensor] = []
        modules = dict(users_module(self._module).named_modules())
        if layer is not None and layer not in modules:
            raise UnknownNameError("layer", layer, [name for name in modules if name])
        self._name = layer or layer_order(context)[0]
        if layer is None:
            modules[self._name].register_forward_pre_hook(lambda _, given: self._keep(given))
        else:
            modules[layer].register_forward_hook(lambda _, given, output: self._keep((output,)))

    def _keep(self, given: Any) -> None:
        self._read += [value for value in given[:1] if isinstance(value, Tensor)]

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the features `(B, D)` at inputs `(B, *S)`, one input at a time."""
        rows = inputs.split(1)
        return torch.cat(self._evaluator.in_turn(len(rows), lambda row: self._of_one(rows[row])))

    def _of_one(self, inputs: Tensor) -> Tensor:
        self._read.clear()
        self._evaluator.run(self._module, inputs)
        if not self._read:
            raise NotApplicableError(
                f"expected layer {self._name!r} to be called with a tensor, got none; name another "
                "with layer="
            )
        return self._read[-1].detach().flatten().unsqueeze(0)


metrics.add_metric("relative_input_stability", RelativeInputStability)
metrics.add_metric("relative_output_stability", RelativeOutputStability)
metrics.add_metric("relative_representation_stability", RelativeRepresentationStability)

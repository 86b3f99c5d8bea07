"""Permute the axes of settings that are laid out as the inputs are: tensors and baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .._engine.axes import Axes, ChannelsFirst, in_users_order
from .._engine.evaluator import Evaluator, PassCount
from ..errors import NotApplicableError
from . import Baseline, BaselineResult
from .base import FunctionBaseline, baseline_results
from .constant import FixedValues

T = TypeVar("T")
_WITHOUT_AXES = (str, int, float, bool, type(None))


def settings_to_first(thing: T, axes: Axes, ndim: int) -> T:
    """Return a method, or a component of one, with its tensors and baselines channels first.

    Args:
        thing: is not changed; it is returned itself where nothing has to be permuted.
        axes: of the inputs.
        ndim: the dimensions of one input `*S`.

    Raises:
        NotApplicableError: it holds a manifold, whose directions cannot be permuted.
    """
    if axes.channels == "first" or not dataclasses.is_dataclass(thing) or isinstance(thing, type):
        return thing
    changed = {}
    for field in dataclasses.fields(thing):
        value = getattr(thing, field.name)
        permuted = _permuted(field.name, value, axes, ndim)
        if permuted is not value:
            changed[field.name] = permuted
    return cast(T, dataclasses.replace(cast(Any, thing), **changed)) if changed else thing


def _permuted(name: str, value: Any, axes: Axes, ndim: int) -> Any:
    """Return the value of a setting channels first; the value itself where it has no axes."""
    if isinstance(value, _WITHOUT_AXES):
        return value
    if name == "references" and isinstance(value, Tensor):
        return axes.to_first(value) if value.ndim == ndim + 1 else value
    if name == "units":
        return axes.broadcast_to_first(torch.as_tensor(value), ndim)
    if name == "manifold":
        raise NotApplicableError(
            f"expected a manifold given by name for channels={axes.channels!r}, got "
            f"{type(value).__name__}; fit it on inputs (B, C, ...), and permute them in the model"
        )
    if isinstance(value, FixedValues):
        return dataclasses.replace(value, values=_broadcast(value.values, axes, ndim))
    if isinstance(value, Baseline) and not _is_builtin(value):
        return _UserOrderBaseline(value, axes)
    if isinstance(value, (list, tuple)):
        items = [_permuted(name.removesuffix("s"), item, axes, ndim) for item in value]
        same = all(permuted is item for permuted, item in zip(items, value, strict=True))
        return value if same else type(value)(items)
    return settings_to_first(value, axes, ndim)


def _broadcast(values: Tensor, axes: Axes, ndim: int) -> Tensor:
    """Return values that broadcast against `(B, *S)` channels first."""
    if values.ndim > ndim:
        return axes.to_first(values)
    return axes.broadcast_to_first(values, ndim)


def _is_builtin(thing: object) -> bool:
    builtin = type(thing).__module__.partition(".")[0] == __name__.partition(".")[0]
    return builtin and not isinstance(thing, FunctionBaseline)


@dataclass(frozen=True, eq=False)
class _UserOrderBaseline(Baseline):
    """A user's baseline, called with inputs in the user's order of axes.

    Args:
        baseline: the user's baseline; see `unilens.baselines.Baseline`.
        axes: of the user's inputs.
    """

    baseline: Baseline
    axes: Axes

    @property
    def passes(self) -> PassCount:
        """Passes of the user's baseline."""
        return self.baseline.passes

    @property
    def count(self) -> int:
        """Baselines per input."""
        return self.baseline.count

    @property
    def has_trajectory(self) -> bool:
        """Whether the user's baseline keeps the points of its search."""
        return self.baseline.has_trajectory

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise where the user's baseline does not fit the model or the inputs."""
        self.baseline.check(in_users_order(model), self.axes.from_first(inputs))

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> Iterator[BaselineResult]:
        """Yield the user's baselines, channels first."""
        users = self.axes.from_first(inputs)
        given = self.baseline(in_users_order(model), users, target, generator=generator)
        for result in baseline_results(given):
            values, trajectory = result.values, result.trajectory
            if isinstance(values, Tensor) and values.shape == users.shape:
                values = self.axes.to_first(values)
            if trajectory is not None:
                trajectory = self.axes.to_first(trajectory, 2)
            yield dataclasses.replace(result, values=values, trajectory=trajectory)


def function_to_first(function: Callable[..., Any], axes: Axes) -> Callable[..., Any]:
    """Wrap a user's function of model, inputs and target to take and return channels first."""

    def maps(model: Any, inputs: Tensor, target: Tensor) -> Any:
        users = axes.from_first(inputs)
        wrapped = isinstance(model, (ChannelsFirst, Evaluator))
        found = function(model.model if wrapped else model, users, target)
        fits = isinstance(found, Tensor) and found.shape == users.shape
        return axes.to_first(found) if fits else found

    return maps

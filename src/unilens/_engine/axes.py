"""The axis of an input that holds the channels, and models of another order made channels-first.

All of unilens reads inputs channels first: `(B, C, *spatial_shape)`. Inputs of another order are
permuted on entry, and the user's model runs inside a module that permutes them back. So a
channels-last model gives, value by value, what the same channels-first model gives.
"""

from __future__ import annotations

import dataclasses
import threading
import weakref
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from .._validation.models import check_model
from .._validation.settings import check_channels
from ..errors import NotApplicableError, require
from .channel_detection import Reading, of_shape, read_channels
from .evaluator import Evaluator
from .packing import MultiInputs
from .plan_cache import Adapter

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Axes:
    """Where the channels of inputs `(B, *S)` are.

    Attributes:
        channels: "first", "last", "none", or the number of an axis between, as in clips
            `(B, T, C, H, W)`.
        reason: what tells it; None where the user set it.
        sure: false where it is an assumption.
    """

    channels: str | int = "first"
    reason: str | None = None
    sure: bool = True

    def to_first(self, values: Tensor, leading: int = 1) -> Tensor:
        """Return values `(..., *S)` channels first; `leading` is the number of dimensions of `...`.

        >>> import torch
        >>> Axes("last").to_first(torch.zeros(2, 8, 9, 3)).shape
        torch.Size([2, 3, 8, 9])
        >>> Axes("none").to_first(torch.zeros(2, 8, 9)).shape
        torch.Size([2, 1, 8, 9])
        """
        if self.channels in ("first", "none"):
            return values if self.channels == "first" else values.unsqueeze(leading)
        return values.movedim(self._axis(leading), leading).contiguous()

    def from_first(self, values: Tensor, leading: int = 1) -> Tensor:
        """Return values that are channels first in the user's own order; see `to_first`."""
        if self.channels in ("first", "none"):
            return values if self.channels == "first" else values.squeeze(leading)
        return values.movedim(leading, self._axis(leading)).contiguous()

    def _axis(self, leading: int) -> int:
        return self.channels + leading - 1 if isinstance(self.channels, int) else -1

    def broadcast_to_first(self, values: Tensor, ndim: int) -> Tensor:
        """Return values that broadcast against `(*S)` of `ndim` dimensions, channels first."""
        if self.channels == "first" or not values.ndim:
            return values
        return self.to_first(values.reshape((1,) * (ndim - values.ndim) + values.shape), 0)

    def __str__(self) -> str:
        return str(self.channels) if self.reason is None else f"{self.channels} ({self.reason})"


class ChannelsFirst(Adapter):
    """A channels-last model, or one without channels, as one of `(M, C, *spatial_shape)`."""

    told_by_arrangement = True

    def __init__(self, model: nn.Module, axes: Axes) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.axes = model, axes

    @property
    def arrangement(self) -> Hashable:
        """The order of axes."""
        return self.axes

    def forward(self, inputs: Tensor) -> Any:
        """Return the model's outputs; it takes the inputs in its own order."""
        return self.model(self.axes.from_first(inputs))


def users_module(model: nn.Module) -> nn.Module:
    """Return the user's module, without the adapter that permutes its axes."""
    return model.model if isinstance(model, ChannelsFirst) else model


_channels_first: weakref.WeakKeyDictionary[Evaluator, dict[object, Any]]
_channels_first = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def _once(evaluator: Evaluator, key: object, value: T) -> T:
    """Return the first value kept for an evaluator under the key: threads may store one each."""
    with _lock:
        kept: T = _channels_first.setdefault(evaluator, {}).setdefault(key, value)
        return kept


def _kept(evaluator: Evaluator, key: object) -> Any:
    with _lock:
        return _channels_first.get(evaluator, {}).get(key)


def resolve_axes(
    model: nn.Module | Evaluator, inputs: Tensor, channels: str | int = "auto"
) -> Axes | None:
    """Return where the channels of inputs are; None for tables `(B, F)`, which have no such axis.

    Args:
        model: an `Evaluator` has its own setting, and remembers what the model told.
        inputs: `(B, *S)`.
        channels: one of `CHANNELS`, or an axis; "auto" takes the evaluator's setting.

    Raises:
        UnilensError: it is none of these, or the model reads its batch from another axis.
    """
    check_channels(channels)
    evaluator = model if isinstance(model, Evaluator) else None
    if channels == "auto" and evaluator is not None:
        channels = evaluator.channels
    if inputs.ndim < 3:
        return None
    if channels != "auto":
        return Axes(_named(channels, inputs))
    key = "axes", inputs.shape[1:]
    axes = None if evaluator is None else _kept(evaluator, key)
    if axes is None:
        axes = _axes(read_channels(evaluator.model if evaluator else _checked(model), inputs))
    return axes if evaluator is None else _once(evaluator, key, axes)


def _axes(reading: Reading) -> Axes:
    return Axes(reading.channels, reading.reason, reading.sure)


def _named(channels: str | int, inputs: Tensor) -> str | int:
    """Return an axis by its name where it is the first or the last."""
    if not isinstance(channels, int):
        return channels
    require(
        channels < inputs.ndim,
        f"expected channels to be an axis below {inputs.ndim} of inputs of shape "
        f"{tuple(inputs.shape)}, got {channels}",
    )
    return {1: "first", inputs.ndim - 1: "last"}.get(channels, channels)


def _checked(model: object) -> nn.Module:
    check_model(model)
    assert isinstance(model, nn.Module)
    return model


def channels_first(model: nn.Module | Evaluator, axes: Axes | None) -> Evaluator:
    """Return an evaluator of the model as one of channels first; for one evaluator always the same.

    Args:
        model: in the user's own order.
        axes: of its inputs; None for tables.
    """
    evaluator = Evaluator.of(model)
    if axes is None or axes.channels == "first":
        return evaluator
    adapted: Evaluator | None = _kept(evaluator, axes.channels)
    if adapted is None:
        adapted = evaluator.with_model(ChannelsFirst(evaluator.model, Axes(axes.channels)))
        adapted.channels = "first"
    return _once(evaluator, axes.channels, adapted)


def in_users_order(model: Evaluator) -> Evaluator:
    """Return the evaluator of the model that the user gave; see `channels_first`."""
    if not isinstance(model.model, ChannelsFirst):
        return model
    return model.with_model(model.model.model)


def refuse_channels_setting(channels: str | int) -> None:
    """Raise `NotApplicableError` where channels are set for several inputs."""
    check_channels(channels)
    if channels not in ("auto", "first"):
        raise NotApplicableError(
            f"expected no channels={channels!r} for several inputs, each of which may have another "
            "order; permute the inputs to (B, C, ...) in a module around the model"
        )


def axes_are_sure(thing: object, inputs: MultiInputs) -> bool:
    """Whether the shapes of several inputs tell their channels, where these count."""
    tensors = inputs.values() if isinstance(inputs, Mapping) else inputs
    return all(
        of_shape(value.shape).sure
        for value in tensors
        if isinstance(value, Tensor) and value.ndim > 2 and value.is_floating_point()
        if reads_axes(thing, value.ndim)
    )


@runtime_checkable
class _ReadsAxes(Protocol):
    """A method or component whose values may depend on which axis holds the channels.

    Attributes:
        reads_axes_from: the fewest dimensions of inputs `(B, *S)` for which they do; None where
            only its components tell.
    """

    reads_axes_from: int | None


def reads_axes(thing: object, ndim: int) -> bool:
    """Whether a method or component gives other values where the channels lie elsewhere.

    Args:
        thing: it or its components say so; see `_ReadsAxes`.
        ndim: the dimensions of the inputs.
    """
    if isinstance(thing, _ReadsAxes) and thing.reads_axes_from is not None:
        return ndim >= thing.reads_axes_from
    return any(reads_axes(component, ndim) for component in _components_of(thing))


def _components_of(thing: object) -> Iterator[object]:
    """Yield the components of a method, or of a component."""
    if isinstance(thing, (list, tuple)):
        yield from thing
    elif isinstance(thing, Mapping):
        yield from thing.values()
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        for field in dataclasses.fields(thing):
            yield getattr(thing, field.name)

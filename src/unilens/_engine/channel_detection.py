"""The axis of its inputs that a model reads as channels, seen at the first operation they reach.

The model runs up to its first convolution, recurrent layer, attention or the like, and stops there.
Which axis of the inputs that operation reads as channels is seen from gradients: its first channel
depends on one index of this axis alone. So permutations, added dimensions and normalisations before
it do not matter. Where this shows nothing, the shape tells, or channels first is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._ops.random import uniform
from ..errors import UnilensError
from .copying import private_copy, unwrapped
from .guard import USER_MODULE, Guard
from .plans import MODEL_ERRORS

_OF_A_PHOTOGRAPH = 8
"""Sides of at least this many pixels, beside 1 or 3 channels, are a photograph's."""
_FEW_CHANNELS = (1, 3)
_GATES = ("gru", "lstm", "rnn_tanh", "rnn_relu")
_CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}


class Reading(NamedTuple):
    """Where a model's channels are.

    Attributes:
        channels: "first", "last", "none", or the number of an axis between.
        reason: what this was read off.
        sure: false where it was only assumed.
    """

    channels: str | int
    reason: str
    sure: bool = True


@torch.inference_mode(False)
def read_channels(model: nn.Module, inputs: Tensor) -> Reading:
    """Return where the model's channels are, from its first operation or the inputs' shape.

    Args:
        model: it is not changed; a copy runs at one input, up to the first operation that tells.
        inputs: `(B, *S)` of at least three dimensions.

    Raises:
        UnilensError: the first operation reads the axis of the inputs as time, not as the batch.
    """
    sides = inputs.shape[2:]
    if inputs.ndim == 4 and inputs.shape[1] in _FEW_CHANNELS and min(sides) >= _OF_A_PHOTOGRAPH:
        return Reading("first", "shape of photographs")
    return _of_first_operation(model, inputs) or of_shape(inputs.shape)


def of_shape(shape: torch.Size) -> Reading:
    """Return what the shape says: few channels at one end, and sides longer than these beside."""
    few = _FEW_CHANNELS if len(shape) > 3 else (1,)
    first = shape[1] in few and min(shape[2:]) > max(few)
    last = shape[-1] in few and min(shape[1:-1]) > max(few)
    if first != last:
        return Reading("first" if first else "last", "shape")
    return Reading("first", "assumed", sure=False)


def _of_first_operation(model: nn.Module, inputs: Tensor) -> Reading | None:
    """Return what the first operation says; None where it says nothing for sure."""
    try:
        copy = private_copy(unwrapped(model))
        kind = next((p.dtype for p in copy.parameters() if p.is_floating_point()), inputs.dtype)
        # Two inputs, so that the axis of the batch can be seen.
        given = inputs[:1].detach().to(kind).repeat_interleave(2, 0)
    except UnilensError:
        return None
    leaf = given.requires_grad_()
    first = _FirstOperation(leaf)
    try:
        with USER_MODULE, Guard(model), torch.enable_grad(), first:
            copy(leaf.clone())
    except _Reached:
        pass
    except MODEL_ERRORS as error:
        if isinstance(error, BatchNotFirstError):
            raise
        return None
    return first.reading


class BatchNotFirstError(UnilensError):
    """The model reads the first axis of its inputs as time."""


class _Reached(BaseException):
    """The first operation that tells has been reached: nothing of the rest need run."""


class _FirstOperation(TorchFunctionMode):
    """Reads the first operation that the inputs reach and that tells, and stops the model there.

    Args:
        inputs: `(2, *S)`, the leaf from which all gradients are taken.
    """

    def __init__(self, inputs: Tensor) -> None:
        super().__init__()
        self.reading: Reading | None = None
        self._inputs = inputs

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Read a function that tells; run any other."""
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if name in _READERS:
            values = args[0] if args else next(iter(kwargs.values()), None)
            sources = _Sources(values, self._inputs) if isinstance(values, Tensor) else None
            if sources is not None and sources.known:
                self.reading = _READERS[name](name, sources, args)
                raise _Reached
        return function(*args, **kwargs)


class _Sources:
    """From which axis of the inputs each axis of some values comes.

    Args:
        values: what an operation is given.
        inputs: `(2, *S)`, the leaf that they may depend on.
    """

    def __init__(self, values: Tensor, inputs: Tensor) -> None:
        self.values, self.inputs = values, inputs
        self.known = values.is_floating_point() and values.requires_grad
        # What is left out of the inputs, such as all steps but the last, is no axis of the values.
        self._reached = self._indices(values) if self.known else []
        self.known = self.known and all(self._reached)

    def axis(self, dim: int) -> int | None:
        """Return the axis of the inputs; None where there is no single one, or the side is 1."""
        if self.values.shape[dim] == 1:
            return None
        first = self._indices(self.values.select(dim, 0))
        counts = enumerate(zip(first, self._reached, strict=True))
        axes = [axis for axis, (count, reached) in counts if count == 1 and reached > 1]
        return axes[0] if len(axes) == 1 else None

    def _indices(self, values: Tensor) -> list[int]:
        """Return on how many indices along each axis of the inputs the values depend.

        That is where the gradient of a random sum is not zero: at random no two terms cancel.
        """
        generator = torch.Generator().manual_seed(0)
        weights = uniform(values.shape, generator).to(values)
        (slope,) = torch.autograd.grad(
            (values * weights).sum(), self.inputs, retain_graph=True, materialize_grads=True
        )
        touched = slope != 0
        return [int(touched.movedim(axis, 0).flatten(1).any(1).sum()) for axis in range(slope.ndim)]


def _named(axis: int | None, sources: _Sources, reason: str) -> Reading | None:
    """Return the reading of an axis of the inputs; None for one that is neither first nor last."""
    places = {1: "first", sources.inputs.ndim - 1: "last"}
    return Reading(places[axis], reason) if axis in places else None


def _of_convolution(name: str, sources: _Sources, args: tuple[Any, ...]) -> Reading | None:
    spatial, reason = _CONVOLUTIONS[name], name.capitalize()
    channels = sources.values.ndim - spatial - 1
    if sources.values.shape[channels] > 1:
        axis = sources.axis(channels)
        if axis is not None and 1 < axis < sources.inputs.ndim - 1:
            return Reading(axis, reason)
        return _named(axis, sources, reason)
    dims = [sources.axis(dim - spatial) for dim in range(spatial)]
    shape = sources.inputs.shape
    for place, first, ndim, single in (
        ("first", 2, spatial + 2, shape[1] == 1),
        ("last", 1, spatial + 2, shape[-1] == 1),
        ("none", 1, spatial + 1, True),
    ):
        along = all(axis in (None, first + number) for number, axis in enumerate(dims))
        if len(shape) == ndim and single and along:
            return Reading(place, reason)
    return None


def _of_last_axis(name: str, sources: _Sources, args: tuple[Any, ...]) -> Reading | None:
    """Read an operation whose features are the last axis."""
    reason, last = _REASONS.get(name, name), sources.inputs.ndim - 1
    axis = sources.axis(-1)
    if sources.values.shape[-1] == 1:
        others = {sources.axis(dim) for dim in range(sources.values.ndim - 1)} - {None, 0}
        single = [a for a in (1, last) if sources.inputs.shape[a] == 1 and a not in others]
        axis = single[0] if others and len(single) == 1 else None
    if name == "linear" and axis != last and sources.inputs.ndim == 3:
        return None  # it may as well mix the steps of time
    return _named(axis, sources, reason)


def _of_sequence(name: str, sources: _Sources, args: tuple[Any, ...]) -> Reading | None:
    """Read a recurrent layer or attention; raise where it takes the batch for time."""
    batch_first = name in _GATES and bool(args[-1])
    if sources.values.ndim == 3 and not batch_first and sources.axis(0) == 0:
        raise BatchNotFirstError(
            f"expected inputs with the batch first, but {_REASONS[name]} reads the first axis of "
            f"inputs (B, {', '.join(map(str, sources.inputs.shape[1:]))}) as time; build it with "
            "batch_first=True, or wrap the model in a module that transposes the two axes"
        )
    return _of_last_axis(name, sources, args)


def _of_norm(name: str, sources: _Sources, args: tuple[Any, ...]) -> Reading | None:
    return _of_last_axis(name, sources, args) if len(args[1]) == 1 else None


_REASONS = {
    "linear": "Linear",
    "layer_norm": "LayerNorm",
    "gru": "GRU",
    "lstm": "LSTM",
    "rnn_tanh": "RNN",
    "rnn_relu": "RNN",
    "gru_cell": "GRUCell",
    "lstm_cell": "LSTMCell",
    "rnn_tanh_cell": "RNNCell",
    "rnn_relu_cell": "RNNCell",
    "multi_head_attention_forward": "MultiheadAttention",
    "_transformer_encoder_layer_fwd": "TransformerEncoderLayer",
    "_native_multi_head_attention": "MultiheadAttention",
}
_READERS: dict[str, Callable[[str, _Sources, tuple[Any, ...]], Reading | None]] = {
    **dict.fromkeys(_CONVOLUTIONS, _of_convolution),
    **dict.fromkeys(_REASONS, _of_last_axis),
    **dict.fromkeys((*_GATES, "multi_head_attention_forward"), _of_sequence),
    "layer_norm": _of_norm,
}

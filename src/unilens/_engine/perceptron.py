"""Multi-layer perceptrons, read from a model as a chain of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .._ops.precision import to_float64
from ..errors import NotApplicableError
from .activations import caller_of, depends, function_name, has_tensor
from .evaluator import Evaluator

_ACTIVATIONS: dict[str, tuple[type[nn.Module], tuple[str, ...]]] = {
    "relu": (nn.ReLU, ()),
    "leaky_relu": (nn.LeakyReLU, ("negative_slope",)),
    "sigmoid": (nn.Sigmoid, ()),
    "tanh": (nn.Tanh, ()),
    "softplus": (nn.Softplus, ("beta", "threshold")),
    "elu": (nn.ELU, ("alpha",)),
}
_PASSES_ON = {
    "flatten",
    "view",
    "view_as",
    "reshape",
    "contiguous",
    "clone",
    "dropout",
    "squeeze",
    "unsqueeze",
}
_EXPECTED = (
    "expected a model that is a chain of Linear, increasing activations, Flatten and Dropout, "
    "Linear first and last"
)


class Layer(NamedTuple):
    """Neurons `link(weight @ x + bias)`; the link is elementwise and never decreases.

    Attributes:
        weight: `(neurons, inputs)`.
        bias: `(neurons,)`.
        link: the activations that follow, in order.
    """

    weight: Tensor
    bias: Tensor
    link: nn.Sequential

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the activations `(M, neurons)` at inputs `(M, inputs)`."""
        return self.link(inputs @ self.weight.T + self.bias)


def perceptron(model: Evaluator, sample: Tensor) -> list[Layer]:
    """Return the layers of a multi-layer perceptron, in float64 where the device has it.

    One pass records what the model calls; branches that depend on the input are as at the sample.

    Args:
        model: whose pass is a chain of layers.
        sample: one input `(1, *S)`; its values are flattened for the first layer.

    Raises:
        NotApplicableError: it is not such a chain; the message names the layer.
    """
    layers: list[Layer] = []
    for call in _calls(model, sample):
        if call.name == "linear":
            weight = to_float64(call.args[1].detach())
            bias = call.args[2] if len(call.args) > 2 else call.settings.get("bias")
            none = weight.new_zeros(len(weight))
            layers.append(
                Layer(weight, none if bias is None else to_float64(bias.detach()), nn.Sequential())
            )
        elif layers and (link := _link(call)) is not None:
            layers[-1].link.append(link)
        elif call.name not in _PASSES_ON:
            raise NotApplicableError(f"{_EXPECTED}, got {call.name} in {call.place}")
    if not layers or layers[0].weight.shape[1] != sample[0].numel():
        raise NotApplicableError(
            f"{_EXPECTED}, got no Linear({sample[0].numel()}, ...) to begin with"
        )
    if layers[-1].link:
        raise NotApplicableError(f"{_EXPECTED}, got {layers[-1].link[-1]} at the end")
    return layers


class _Called(NamedTuple):
    """A function that a pass calls on the result of the function before it."""

    name: str
    args: Sequence[Any]
    settings: Mapping[str, Any]
    place: str


class _Chain(TorchFunctionMode):
    """Records what a pass calls, and raises where that is no chain."""

    def __init__(self, first: Tensor, names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.calls: list[_Called] = []
        self._last, self._names = first, names

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = [value for value in (*args, *kwargs.values()) if depends(value)]
        if given and has_tensor(result):
            name = function_name(func).removesuffix("_")
            place = caller_of(name, self._names, 2).place
            if not all(_is(value, self._last) for value in given):
                raise NotApplicableError(f"{_EXPECTED}, got {name} in {place}, not in line")
            self.calls.append(_Called(name, args, kwargs, place))
            self._last = result
        return result


def _is(value: Tensor, last: Tensor) -> bool:
    """Return whether a value is the last one, or the view of it that a backward hook makes."""
    view = value.shape == last.shape and value.data_ptr() == last.data_ptr()
    return value is last or view


def _calls(model: Evaluator, sample: Tensor) -> list[_Called]:
    """Return the calls of one pass at a sample, without the casts that prepare it."""
    with model.borrowed(sample) as (module, run), torch.enable_grad():
        leaf = sample.clone().requires_grad_()
        chain = _Chain(leaf, {submodule: name for name, submodule in module.named_modules()})
        with chain:
            run(leaf)
    return [call for call in chain.calls if call.name != "to"]


def _link(call: _Called) -> nn.Module | None:
    """Return the module of an increasing activation; None for other functions."""
    if call.name not in _ACTIVATIONS:
        return None
    kind, names = _ACTIVATIONS[call.name]
    settings = dict(zip(names, call.args[1:], strict=False))
    settings |= {name: call.settings[name] for name in names if name in call.settings}
    link = kind(**settings)
    slope = getattr(link, "negative_slope", getattr(link, "alpha", 0.0))
    return link if slope >= 0 else None

"""Multi-layer perceptrons, read from a module as a chain of layers."""

from __future__ import annotations

import copy
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .errors import NotApplicableError
from .numerics import wide

_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.ELU)
_FUNCTIONS: dict[Any, type[nn.Module]] = {
    function: module
    for module, functions in {
        nn.ReLU: (torch.relu, nn.functional.relu, "relu"),
        nn.Sigmoid: (torch.sigmoid, nn.functional.sigmoid, "sigmoid"),
        nn.Tanh: (torch.tanh, nn.functional.tanh, "tanh"),
        nn.Flatten: (torch.flatten, "flatten"),
    }.items()
    for function in functions
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


def perceptron(model: nn.Module, features: int) -> list[Layer]:
    """Return the layers of a multi-layer perceptron, in float64 where the device has it.

    What is not a part of the trace, such as a hook that changes an output, is not in the layers.

    Args:
        model: a module whose `torch.fx` trace is a chain.
        features: the number of values in an input, which are flattened for the first layer.

    Raises:
        NotApplicableError: it is not such a chain; the message names the layer.
    """
    layers: list[Layer] = []
    for name, part in _chain(model):
        if isinstance(part, nn.Linear):
            weight = wide(part.weight.detach())
            bias = weight.new_zeros(len(weight)) if part.bias is None else wide(part.bias.detach())
            layers.append(Layer(weight, bias, nn.Sequential()))
        elif layers and _never_decreases(part):
            layers[-1].link.append(copy.deepcopy(part))
        elif not _passes_on(part):
            raise NotApplicableError(f"{_EXPECTED}, got {name}")
    if not layers or layers[0].weight.shape[1] != features:
        raise NotApplicableError(f"{_EXPECTED}, got no Linear({features}, ...) to begin with")
    if layers[-1].link:
        raise NotApplicableError(f"{_EXPECTED}, got {layers[-1].link[-1]} at the end")
    return layers


def _chain(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the modules that the model runs one after the other, each with how to call it."""
    root = nn.Sequential(model)
    try:
        nodes = list(fx.Tracer().trace(root).nodes)
    except Exception as error:  # a user's forward can do anything with a proxy
        raise NotApplicableError(f"{_EXPECTED}, got one that torch.fx cannot trace") from error
    for before, node in itertools.pairwise(nodes):
        if node.all_input_nodes != [before]:
            raise NotApplicableError(f"{_EXPECTED}, got {node.name}, which is not in line")
    return [_module(root, node) for node in nodes[1:-1]]


def _module(root: nn.Module, node: fx.Node) -> tuple[str, nn.Module]:
    if node.op == "call_module":
        part = root.get_submodule(str(node.target))
        return f"layer {str(node.target).partition('.')[2] or 0}, {part}", part
    known = _FUNCTIONS.get(node.target)
    if known is None:
        raise NotApplicableError(f"{_EXPECTED}, got {node.name}, a call of {node.target}")
    rest = node.args[1:] if known is nn.Flatten else ()
    return node.name, known(*rest, **node.kwargs)


def _never_decreases(part: nn.Module) -> bool:
    slope = getattr(part, "negative_slope", getattr(part, "alpha", 0.0))
    return isinstance(part, _ACTIVATIONS) and slope >= 0


def _passes_on(part: nn.Module) -> bool:
    """Return whether a module in eval mode leaves flattened inputs as they are."""
    whole = isinstance(part, nn.Flatten) and (part.start_dim, part.end_dim) == (1, -1)
    return whole or isinstance(part, (nn.Dropout, nn.Identity))

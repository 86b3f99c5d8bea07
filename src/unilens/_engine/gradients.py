"""Gradients of a model's outputs in its inputs and weights, and the errors where there are none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .._validation.models import not_differentiable
from ..errors import UnilensError, first_line
from .memory import out_of_memory
from .plans import MODEL_ERRORS


def raw_input_gradient(
    total: Tensor, leaf: Tensor, *, reentrant: bool = False, create_graph: bool = False
) -> Tensor | None:
    """Return the gradient of a number in a leaf, or None where it does not depend on it."""
    if not reentrant:
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=create_graph, allow_unused=True)
        return gradient
    total.backward()
    return leaf.grad


def input_gradient(
    model: nn.Module,
    values: Tensor,
    leaf: Tensor,
    *,
    reentrant: bool = False,
    create_graph: bool = False,
) -> Tensor:
    """Return the gradient of the sum of values in a leaf; raise where there is none.

    Args:
        model: the user's, which messages are about.
        values: `(m,)`, with their graph.
        leaf: `(m, *S)`.
        reentrant: whether it comes by `backward`, as reentrant checkpointing needs it.
        create_graph: whether it can be differentiated again.
    """
    with _backward_of(model, values):
        gradient = raw_input_gradient(
            values.sum(), leaf, reentrant=reentrant, create_graph=create_graph
        )
    if gradient is None:
        raise not_differentiable(model, "outputs that do not depend on them")
    return gradient


def weight_gradients(
    model: nn.Module, values: Tensor, weights: list[Tensor], reentrant: bool
) -> list[Tensor]:
    """Return the gradients of the sum of values in a copy's weights; see `input_gradient`."""
    with _backward_of(model, values, "weights"):
        if not reentrant:
            return list(torch.autograd.grad(values.sum(), weights, materialize_grads=True))
        for weight in weights:
            weight.grad = None
        values.sum().backward()
    return [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]


@contextmanager
def _backward_of(model: nn.Module, values: Tensor, *about: str) -> Iterator[None]:
    """Turn what a pass backward raises into an error of one line."""
    if not values.requires_grad:
        raise not_differentiable(model)
    try:
        yield
    except MODEL_ERRORS as error:
        if isinstance(error, UnilensError) or out_of_memory(error):
            raise
        raise not_differentiable(model, first_line(error), *about) from error


def second_gradient(product: Tensor, leaf: Tensor) -> Tensor:
    """Return the gradient of a product's sum in a leaf; zero where it does not depend on it."""
    if not product.requires_grad:
        return torch.zeros_like(leaf)
    (gradient,) = torch.autograd.grad(product.sum(), leaf, materialize_grads=True)
    return gradient


class Reweighted(nn.Module):
    """A module run with other weights; the module itself is not changed."""

    def __init__(self, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._arguments = (module, dict(weights))  # in a tuple, so that it is no submodule

    def forward(self, inputs: Tensor) -> Tensor:
        module, weights = self._arguments
        return torch.func.functional_call(module, weights, (inputs,))

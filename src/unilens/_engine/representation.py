"""A model's representation of its inputs: what its last layer with weights receives."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..errors import NotApplicableError
from .evaluator import Evaluator
from .unlearning import is_scripted, weights_of


def representation(model: Evaluator, inputs: Tensor) -> Evaluator:
    """Return an evaluator from points `(m, *S)` to representations `(m, D)`.

    The representation is the input of the last layer that has weights, in the order in which the
    model registers its layers; that of a convolution is averaged over its spatial positions.

    Args:
        model: it is not changed, and read as it is now: later training does not show.
        inputs: `(B, *S)`.

    Raises:
        NotApplicableError: the model has no such layer, or does not call it as a module.
    """
    if is_scripted(model.model):
        raise NotApplicableError(f"{_EXPECTED}, got TorchScript; {_REMEDY}")
    copy = model.private_module(inputs)
    last = sorted(weights_of(copy, "last"))
    if not last:
        raise NotApplicableError(f"{_EXPECTED}, got one without weights; {_REMEDY}")
    layer = last[0].rpartition(".")[0]
    return model.with_model(_Representation(copy, layer).eval())


_EXPECTED = "expected a model whose last layer is a module with weights"
_REMEDY = "use method='ig'"


class _Representation(nn.Module):
    """Returns the input of a layer of a model, flattened.

    Args:
        model: a private copy.
        layer: its name in the model.
    """

    def __init__(self, model: nn.Module, layer: str) -> None:
        super().__init__()
        self.model, self.layer = model, layer

    def forward(self, inputs: Tensor) -> Tensor:
        received: list[Tensor] = []

        def receive(module: nn.Module, args: Any, kwargs: Any) -> None:
            values = (*args, *kwargs.values())
            received.extend(value for value in values[:1] if isinstance(value, Tensor))

        layer = self.model.get_submodule(self.layer)
        handle = layer.register_forward_pre_hook(receive, with_kwargs=True)
        try:
            self.model(inputs)
        finally:
            handle.remove()
        values = received[-1] if received else inputs[:0]
        if len(values) != len(inputs) or values.ndim < 2:
            name = self.layer or "the model itself"
            raise NotApplicableError(
                f"{_EXPECTED}, got {name!r}, which is not called with a row per input; {_REMEDY}"
            )
        return (values.flatten(2).mean(2) if values.ndim > 3 else values).flatten(1)

"""Outputs and input gradients of a module at points, and the memory that they take."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..errors import first_line
from .gradients import raw_input_gradient
from .memory import out_of_memory, pointer_of
from .plans import MODEL_ERRORS, Call, Plan


class Observation(NamedTuple):
    """A model's outputs `(m, K)` at points, with its input gradients `(m, *S)` where it has any.

    Attributes:
        outputs: detached.
        gradient: of a fixed sum of the outputs; None where there is none.
        error: of the backward pass, or empty.
        saved_bytes: that autograd keeps for all points.
        reads_values: whether values that depend on the points were read as Python numbers.
    """

    outputs: Tensor
    gradient: Tensor | None
    error: str
    saved_bytes: int
    reads_values: bool = False


def observe(module: nn.Module, points: Tensor, plan: Plan, call: Call) -> Observation:
    """Return a module's outputs at points `(m, *S)`, and gradients of a fixed sum of outputs."""
    leaf = points.detach().clone().requires_grad_()
    saved = _SavedBytes(module)
    with torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
            outputs = call(module, leaf, plan)
        if not outputs.requires_grad:
            return Observation(outputs, None, "its outputs have no gradient", saved.total)
        generator = torch.Generator().manual_seed(0)
        factors = torch.randn(outputs.shape[1:], generator=generator, dtype=torch.float64)
        try:
            total = (outputs * factors.to(outputs)).sum()
            gradient = raw_input_gradient(total, leaf, reentrant=plan.reentrant)
        except MODEL_ERRORS as error:
            if out_of_memory(error):
                raise
            return Observation(outputs.detach(), None, first_line(error), saved.total)
    return Observation(outputs.detach(), gradient, "", saved.total)


class _SavedBytes:
    """Counts the bytes that autograd saves, the module's own tensors left out."""

    def __init__(self, module: nn.Module) -> None:
        tensors = (*module.parameters(), *module.buffers())
        self._own = {pointer_of(value) for value in tensors}
        self._sizes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        address = pointer_of(tensor)
        if address and address not in self._own:
            self._sizes[address] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def total(self) -> int:
        return sum(self._sizes.values())


def joined(observations: list[Observation]) -> Observation:
    """Return observations of several points as one of all points."""
    known = (observation.gradient for observation in observations)
    gradients = [gradient for gradient in known if gradient is not None]
    return Observation(
        torch.cat([observation.outputs for observation in observations]),
        torch.cat(gradients) if len(gradients) == len(observations) else None,
        next((observation.error for observation in observations if observation.error), ""),
        sum(observation.saved_bytes for observation in observations),
    )

"""Gradients of batch norms on the CPU, where PyTorch gets some of them wrong.

In evaluation, for one image `(1, C, H, W)`, the backward pass of `batch_norm` misreads a gradient
that is not contiguous, such as that of `flatten(2).transpose(1, 2)` (torch 2.14.1). Every
pass of one point makes such gradients contiguous first.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.autograd import Function
from torch.nn import Module, functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode


class ContiguousGradient(Function):
    """A tensor whose gradient is made contiguous."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)  # no gradient is not a gradient of 0
        return value.clone()  # not a view, which later code could not change in place

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None if gradients[0] is None else gradients[0].contiguous()


class ContiguousBatchNormGradients(TorchFunctionMode):
    """Makes the gradients that batch norms receive contiguous while a model runs."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is functional.batch_norm and result.requires_grad:
            return ContiguousGradient.apply(result)
        return result


def has_batch_norms(model: Module) -> bool:
    """Return whether a model has layers of batch norm."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())

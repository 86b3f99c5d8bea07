"""Unlearning on a copy: ascent steps in the weights, taken for one input alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .._ops.precision import l2_norm
from ..errors import require
from .calls import Run
from .copying import private_copy

UNLEARNED_WEIGHTS = ("all", "last")
"""Which weights an ascent changes: all, or those of the last layer that has any."""


def weights_of(module: nn.Module, which: str) -> set[str]:
    """Return the names of the floating-point weights that an ascent changes."""
    named = [name for name, value in module.named_parameters() if value.is_floating_point()]
    if which == "all" or not named:
        return set(named)
    layer = named[-1].rpartition(".")[0]
    return {name for name in named if name.rpartition(".")[0] == layer}


def check_weights(module: nn.Module, which: str) -> None:
    """Raise unless a module has weights to unlearn."""
    kind = "a frozen TorchScript module" if is_scripted(module) else "one without parameters"
    require(
        bool(weights_of(module, which)),
        f"expected a model with weights to unlearn, got {kind}; use method='ig', or the model it "
        "is of",
    )


def is_scripted(module: nn.Module) -> bool:
    """Return whether TorchScript is in a module."""
    return any(isinstance(submodule, torch.jit.ScriptModule) for submodule in module.modules())


class Learners:
    """Copies with weights of their own to unlearn with, each lent to one input at a time."""

    def __init__(self, base: nn.Module, chosen: set[str]) -> None:
        self._base, self._chosen = base, chosen
        self._idle: list[nn.Module] = []

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[tuple[nn.Module, list[Tensor]]]:
        """Lend a copy as the model is, and its chosen weights, which take gradients."""
        try:
            module = self._idle.pop()
            first = dict(self._base.named_parameters())
            with torch.no_grad():
                for name, value in module.named_parameters():
                    if name in first:  # a forward may add some
                        value.copy_(first[name])
        except IndexError:
            module = private_copy(self._base, own_weights=True)
        named = module.named_parameters()
        yield module, [value.requires_grad_() for name, value in named if name in self._chosen]
        self._idle.append(module)


def logits_after_ascent(
    run: Run,
    inputs: Tensor,
    weights: list[Tensor],
    gradients: Callable[[Tensor], list[Tensor]],
    rate: float,
    steps: int,
) -> Tensor:
    """Return the logits `(1, K)` at one input `(1, *S)` after normalised steps in the weights.

    Args:
        run: a pass of the copy whose weights change.
        inputs: `(1, *S)`.
        weights: are changed.
        gradients: of the objective in the weights, from the logits.
        rate: the length of a step.
        steps: how many; none is taken where the gradient is zero.
    """
    for _ in range(steps):
        with torch.enable_grad():
            outputs = run(inputs.detach().requires_grad_())
            slopes = gradients(outputs)
        norm = torch.stack([l2_norm(slope, 0) for slope in slopes]).norm()
        if not norm > 0:
            return outputs.detach()
        with torch.no_grad():
            for weight, slope in zip(weights, slopes, strict=True):
                weight += slope * (rate / norm).to(slope.dtype)
    with torch.no_grad():
        return run(inputs).detach()

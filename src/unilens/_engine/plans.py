"""How a model is run, and when two runs of it count as equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

OUTPUT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of the largest output, by the precision of the pass; 0.02 in half precision."""
GRADIENT_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-2}
"""Of the gradient's l2 norm: where a unit is near its kink, rounding alone switches it."""
_HALF_TOLERANCE = 2e-2
SPEED_UPS = ("folded", "channels_last", "together")
MODEL_ERRORS = (Exception,)
"""What a user's forward or backward can raise: exceptions of their own, files, warnings too."""


@dataclass(frozen=True)
class Plan:
    """How a model is run.

    Attributes:
        copied: on private copies; otherwise it is the user's own module, one pass at a time.
        own_weights: whether a copy has weights of its own, since a pass writes into them.
        reads_values: whether the forward decides by values of its input.
        stateful: whether a pass changes what a copy keeps besides its weights.
        restored: whether that is put back after each pass, since outputs depend on it.
        folded: whether batch norms are folded into convolutions.
        pairs: the names of these and those.
        channels_last: whether weights and points are in that memory format.
        together: whether a pass takes several points.
        dtype: of the points that the model is given.
        reentrant: whether gradients come by `backward`, as reentrant checkpointing needs it;
            otherwise by `torch.autograd.grad`.
        backward_error: of the backward pass, or empty.
        saved_bytes: that autograd keeps for one point, weights not counted.
        autocast: the dtype of automatic mixed precision, or None.
        dropped: the speed-ups that gave other values, each with the reason.
    """

    copied: bool = True
    own_weights: bool = False
    reads_values: bool = False
    stateful: bool = False
    restored: bool = False
    folded: bool = False
    pairs: frozenset[str] = frozenset()
    channels_last: bool = False
    together: bool = True
    dtype: torch.dtype = torch.float32
    reentrant: bool = False
    backward_error: str = ""
    saved_bytes: int = 0
    autocast: torch.dtype | None = None
    dropped: dict[str, str] = field(default_factory=dict, compare=False)

    def without(self, reason: str, *names: str) -> Plan:
        """Return the plan without some of what it uses, and the reason if there is one."""
        used = [name for name in names if getattr(self, name)]
        dropped = {**self.dropped, **dict.fromkeys(used, reason)} if reason else self.dropped
        off: dict[str, Any] = dict.fromkeys(used, False)
        return dataclasses.replace(self, **off, dropped=dropped)

    def describe(self) -> dict[str, object]:
        """Return how the model was run, as records store it."""
        used = [name for name in ("copied", *SPEED_UPS) if getattr(self, name)]
        return {"used": used, "dropped": dict(self.dropped)}


Call = Callable[[nn.Module, Tensor, Plan], Tensor]
"""Runs a module at points `(m, *S)` as a plan says, and raises what the module raises."""


def differ(outputs: Tensor, expected: Tensor, plan: Plan) -> str:
    """Return by what outputs differ beyond the tolerance, or nothing."""
    off = _largest_difference(outputs, expected)
    if off <= tolerance_of(OUTPUT_TOLERANCE, plan, expected.dtype):
        return ""
    return f"its outputs differ by {off:.1g} of the largest"


def tolerance_of(known: Mapping[torch.dtype, float], plan: Plan, dtype: torch.dtype) -> float:
    """Return the tolerance of the coarsest dtype among a plan's and the reference's."""
    dtypes = (plan.dtype, dtype, plan.autocast or plan.dtype)
    return known.get(max(dtypes, key=lambda candidate: torch.finfo(candidate).eps), _HALF_TOLERANCE)


def _largest_difference(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a row, relative to the row's largest value."""
    if values.shape != expected.shape:
        return torch.inf
    off = _difference(values, expected).abs().amax(-1)
    scale = expected.abs().amax(-1).clamp_min(torch.finfo(expected.dtype).tiny)
    return float(torch.where(off == 0, 0, off / scale).max())


def relative_norm(values: Tensor, expected: Tensor) -> float:
    """Return the norm of a row's difference, relative to the row's norm."""
    off = _difference(values, expected).flatten(1).double().norm(dim=1)
    scale = expected.flatten(1).double().norm(dim=1).clamp_min(torch.finfo(expected.dtype).tiny)
    return float(torch.where(off == 0, 0, off / scale).max())


def _difference(values: Tensor, expected: Tensor) -> Tensor:
    """Return a difference that is 0 where both are infinite, or both NaN."""
    same = (values == expected) | (values.isnan() & expected.isnan())
    return torch.where(same, 0, values - expected)

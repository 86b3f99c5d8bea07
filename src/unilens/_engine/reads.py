"""Detects forwards that branch on values of their input, as `if x.max() > 1: x = x / 255` does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .memory import pointer_of

_READS = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.equal.default,
)


class ValueReads(TorchDispatchMode):
    """Records whether values that depend on some points are read as Python numbers or booleans.

    With several points in a pass such a number is shared by all of them, and a comparison at two
    points does not show where the branch changes.

    Attributes:
        found: whether one was read.

    Args:
        points: `(m, *S)`.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return false: skipping would import all of torch's compiler."""
        return False

    def __init__(self, points: Tensor) -> None:
        super().__init__()
        self.found = False
        self._dependent = {pointer_of(points)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        depends = not self._dependent.isdisjoint(_pointers((args, kwargs)))
        self.found = self.found or (depends and func in _READS)
        result = func(*args, **kwargs)
        if depends:
            self._dependent |= _pointers(result)
        else:  # memory that was given back is used again
            self._dependent -= _pointers(result)
        return result


def _pointers(values: Any) -> set[int]:
    pointers = {pointer_of(value) for value in tree_leaves(values) if isinstance(value, Tensor)}
    return pointers - {0}

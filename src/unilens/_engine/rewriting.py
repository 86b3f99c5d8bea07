"""One call of a torch function while a model runs, and what autograd records in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

AttentionRule = Literal["constant", "full"]
"""What a product with attention weights passes back: everything to the values, or half to each."""
Function = Callable[..., Any]
NEAR = 1e-6
"""Inputs of an activation nearer to 0 take its slope there: the quotient would be rounding."""
_ZERO = torch.zeros((), dtype=torch.float64, requires_grad=True)
CHAIN, WEIGHTS = "_unilens_chain", "_unilens_weights"
"""Attributes of tensors: their `Chain`, and "attention" or "gate" where they weigh others."""


@dataclass
class Rewriting:
    """The rewriting of one forward pass.

    Attributes:
        attention: the rule of attention weights.
        rewritten: how often each function was rewritten, by its name.
    """

    attention: AttentionRule
    rewritten: Counter[str] = field(default_factory=Counter)


class Call(NamedTuple):
    """One call of a function."""

    func: Function
    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        return self.func(*self.args, **self.kwargs)

    def with_tensors(self, replacements: dict[int, Tensor]) -> Call:
        """Return the call with other tensors, by the ids of those that they replace."""

        def replaced(value: Any) -> Any:
            if isinstance(value, (list, tuple)) and any(isinstance(x, Tensor) for x in value):
                return [replaced(item) for item in value]
            return replacements.get(id(value), value)

        named = {name: replaced(value) for name, value in self.kwargs.items()}
        return self._replace(args=[replaced(value) for value in self.args], kwargs=named)

    @property
    def dependent(self) -> list[Tensor]:
        """The tensors that depend on the input, each once."""
        tensors = tensors_of(self.args, self.kwargs)
        return list({id(value): value for value in tensors if value.requires_grad}.values())


class Chain(NamedTuple):
    """A tensor that is an elementwise function of another one, its root.

    Attributes:
        root: of the same shape.
        version: of the root's values; another one ends the chain.
        at_zero: `()`, the function's value where the root is 0, with its graph to `_ZERO`.
    """

    root: Tensor
    version: int
    at_zero: Tensor

    @classmethod
    def of(cls, value: Tensor) -> Chain:
        chain: Chain | None = getattr(value, CHAIN, None)
        if chain is not None and chain.root._version == chain.version:
            return chain
        return cls(value, value._version, _ZERO)

    @property
    def slope_at_zero(self) -> float:
        """The function's derivative at 0."""
        if not self.at_zero.requires_grad:
            return 0.0
        return float(torch.autograd.grad(self.at_zero, _ZERO, retain_graph=True)[0])


class Carried(torch.autograd.Function):
    """A value whose gradient goes to a surrogate of the same shape."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: tuple[Tensor]) -> Tensor:
        return value[0]  # in a tuple: it is no input, and may be changed in place later

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


class Scaled(torch.autograd.Function):
    """A tensor, or a value in its place, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, factor: float | Tensor, value: tuple[Tensor] | None = None
    ) -> Tensor:
        ctx.factor = factor
        return input.view_as(input) if value is None else value[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return (gradients[0] * ctx.factor).to(gradients[0].dtype), None, None


def with_marks(value: Tensor, like: Tensor | None) -> Tensor:
    """Return a tensor with the marks of another one, or without any."""
    for mark in (CHAIN, WEIGHTS):
        setattr(value, mark, getattr(like, mark, None))
    return value


def mark_like(result: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Mark results as attention weights, or as a gate, where all that they depend on is."""
    kinds = {getattr(value, WEIGHTS, None) for value in tensors_of(args, kwargs) if depends(value)}
    if len(kinds) == 1 and None not in kinds:
        for value in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(value, Tensor):
                setattr(value, WEIGHTS, kinds.copy().pop())


def tensors_of(args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[Tensor]:
    for value in (*args, *kwargs.values()):
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, Tensor):
                yield item


def depends(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.requires_grad
    return isinstance(value, (list, tuple)) and any(map(depends, value))

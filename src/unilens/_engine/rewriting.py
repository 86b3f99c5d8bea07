"""One call of a torch function while a model runs, and what autograd records in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

AttentionRule = Literal["constant", "full"]
"""What a product with attention weights passes back: everything to the values, or half to each."""
Function = Callable[..., Any]
_ZERO = torch.zeros((), dtype=torch.float64, requires_grad=True)
_CHAIN, _ROLE = "_unilens_chain", "_unilens_role"
"""Attributes of tensors: each a pair of what it says and the version of the values it is about."""


@dataclass
class Rewriting:
    """The rewriting of one forward pass.

    Attributes:
        attention: the rule of attention weights.
        mode: that sees the calls.
        rewritten: how often each function was rewritten, by its name.
    """

    attention: AttentionRule
    mode: TorchFunctionMode
    rewritten: Counter[str] = field(default_factory=Counter)


class TorchCall(NamedTuple):
    """One call of a function of torch, by its plain name."""

    func: Function
    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]

    def run(self) -> Any:
        """Return what the function gives."""
        return self.func(*self.args, **self.kwargs)

    def argument(self, place: int, *names: str, default: Any = None) -> Any:
        """Return an argument, given by position or by one of its names."""
        if len(self.args) > place:
            return self.args[place]
        return next((self.kwargs[name] for name in names if name in self.kwargs), default)

    def with_tensors(self, replacements: dict[int, Tensor]) -> TorchCall:
        """Return the call with other tensors, by the ids of those that they replace."""

        def replaced(value: Any) -> Any:
            if isinstance(value, (list, tuple)) and any(isinstance(x, Tensor) for x in value):
                return [replaced(item) for item in value]
            return replacements.get(id(value), value)

        named = {name: replaced(value) for name, value in self.kwargs.items()}
        return self._replace(args=[replaced(value) for value in self.args], kwargs=named)

    def with_constants(self, tensors: Sequence[Tensor]) -> TorchCall:
        """Return the call with some tensors held constant."""
        return self.with_tensors({id(value): value.detach() for value in tensors})

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, those in lists included."""
        return list(_tensors_of((*self.args, *self.kwargs.values())))

    @property
    def dependent(self) -> list[Tensor]:
        """The tensors that depend on the input, each once."""
        return list({id(value): value for value in self.tensors if value.requires_grad}.values())


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
        """Return the chain of a tensor; its own, as a root, where it is in none."""
        chain, version = getattr(value, _CHAIN, (None, 0))
        if chain and version == value._version and chain.root._version == chain.version:
            found: Chain = chain
            return found
        return cls(value, value._version, _ZERO)

    def end_at(self, value: Tensor) -> None:
        """Make a tensor the end of the chain, as long as nothing writes into it."""
        setattr(value, _CHAIN, (self, value._version))

    @property
    def slope_at_zero(self) -> float:
        """The function's derivative at 0."""
        if not self.at_zero.requires_grad:
            return 0.0
        return float(torch.autograd.grad(self.at_zero, _ZERO, retain_graph=True)[0])


def role_of(value: Tensor) -> str | None:
    """Return what a tensor does in a product: "attention" or "gate", which weigh other tensors.

    A "deviation" scales, and a "statistic", such as a mean, becomes one by its reciprocal.
    """
    role, version = getattr(value, _ROLE, (None, 0))
    return role if version == value._version else None


def set_role(result: Any, role: str | None) -> None:
    """Give a role to the tensors that a function returned."""
    if role is not None:
        for value in _tensors_of((result,)):
            setattr(value, _ROLE, (role, value._version))


def shared_role(tensors: Sequence[Tensor]) -> str | None:
    """Return the role that all tensors that depend on the input have; None if they differ."""
    roles = {role_of(value) for value in tensors if value.requires_grad}
    return roles.pop() if len(roles) == 1 else None


class SurrogateGradient(torch.autograd.Function):
    """A value whose gradient goes to a surrogate of the same shape."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: tuple[Tensor]) -> Tensor:
        ctx.set_materialize_grads(False)  # no gradient is not a gradient of 0
        return value[0]  # in a tuple: it is no input, and may be changed in place later

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


class QuotientGradient(torch.autograd.Function):
    """The value of an elementwise function, with a factor in place of its derivative."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, factor: Tensor, value: tuple[Tensor]) -> Tensor:
        ctx.factor = factor
        ctx.set_materialize_grads(False)
        return value[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (gradient,) = gradients
        if gradient is None:
            return None, None, None
        return (gradient * ctx.factor).to(gradient.dtype), None, None


class FactorGradient(torch.autograd.Function):
    """A factor of a product, which receives a share of its gradient."""

    @staticmethod
    def forward(ctx: Any, factor: Tensor, share: float) -> Tensor:
        ctx.share = share
        ctx.set_materialize_grads(False)
        return factor.view_as(factor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return None if gradients[0] is None else gradients[0] * ctx.share, None


def _tensors_of(values: Sequence[Any]) -> Iterator[Tensor]:
    for value in values:
        for item in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(item, Tensor):
                yield item

"""Rules in place of the derivatives of activations, and the other functions that a model calls.

A mode of torch sees every call of an activation in this thread, whether a module, a function or a
method makes it, in place or not, however often. So no module is hooked, traced or changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .batch_norm_gradients import ContiguousGradient


@dataclass
class Activation:
    """One use of an activation in a pass.

    Attributes:
        input: of the activation, a leaf.
        output: with its graph to the input.
        settings: of max pooling, as its function takes them; empty for others.
    """

    input: Tensor
    output: Tensor
    settings: Mapping[str, Any]

    def derivative(self, gradient: Tensor) -> Tensor:
        """Return the gradient in the input by the activation's own derivative."""
        (input_gradient,) = torch.autograd.grad(
            self.output, self.input, gradient, retain_graph=True
        )
        return input_gradient


Rule = Callable[[Activation, Tensor], Tensor]
"""From an activation and the gradient in its output to the value used as its input gradient."""
POOLING = frozenset(("max_pool1d", "max_pool2d", "max_pool3d"))


class Call(NamedTuple):
    """A torch function that ran on something that depends on the inputs, outside every rule.

    Attributes:
        function: its name, such as "gelu".
        place: the innermost module that called it, by name and type.
        module: the type of that module.
    """

    function: str
    place: str
    module: type[nn.Module]


class ActivationRules(TorchFunctionMode):
    """Puts rules in place of derivatives while a model runs in this thread.

    Args:
        rules: by the name of an activation's function, without the underscore of its form in place.
        names: of the model's modules, for messages.

    Attributes:
        applied: how often a rule was used.
        others: calls of other functions that are not known to be linear in the inputs.
    """

    def __init__(self, rules: Mapping[str, Rule], names: Mapping[nn.Module, str]) -> None:
        super().__init__()
        self.applied = 0
        self.others: list[Call] = []
        self._rules, self._names = rules, names

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = function_name(func)
        given = [depends(value) for value in (*args, *kwargs.values())]
        rule = self._rules.get(_kind(name, args, kwargs))
        if rule is not None and any(given) and not kwargs.get("return_indices"):
            self.applied += 1
            return _with_rule(rule, func, name, args, kwargs)
        result = func(*args, **kwargs)
        if any(given) and has_tensor(result) and not _is_linear(name, given, args, kwargs):
            self.others.append(caller_of(name, self._names, 2))
        return result


def caller_of(name: str, names: Mapping[nn.Module, str], above: int) -> Call:
    """Return a call of a function with the innermost module of the model on the stack."""
    frame: FrameType | None = sys._getframe(above)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, nn.Module) and caller in names:
            place = f"{names[caller]} ({type(caller).__name__})" if names[caller] else "the model"
            return Call(name, place, type(caller))
        frame = frame.f_back
    return Call(name, "the model", nn.Module)


def _kind(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the activation that a function computes: `nn.ReLU6` calls hardtanh from 0 to 6."""
    plain = name.removesuffix("_")
    low = args[1] if len(args) > 1 else kwargs.get("min_val", -1.0)
    return "relu6" if plain == "hardtanh" and low == 0 else plain


def _with_rule(
    rule: Rule, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Tensor:
    """Return an activation's output, with a rule in place of its derivative."""
    settings = {key: value for key, value in kwargs.items() if key not in ("input", "inplace")}
    input, *positional = args if args else (kwargs["input"],)
    in_place = name.endswith("_") or bool(kwargs.get("inplace"))
    if name in POOLING:
        settings |= dict(zip(_POOLING_SETTINGS, positional, strict=False))
        positional = []
    elif positional and isinstance(positional[-1], bool):
        in_place = bool(positional.pop())

    def compute(leaf: Tensor) -> Tensor:
        # A function in place would change the leaf: its plain form gives the same.
        return _plain(func, name)(leaf, *positional, **settings)

    output = _Ruled.apply(input.clone() if in_place else input, compute, rule, settings)
    return input.copy_(output) if in_place else output


_POOLING_SETTINGS = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


def _plain(func: Any, name: str) -> Any:
    """Return the form of an activation that is not in place."""
    if not name.endswith("_"):
        return func
    plain = name.removesuffix("_")
    return getattr(torch, plain, None) or getattr(functional, plain)


class _Ruled(torch.autograd.Function):
    """An activation whose pass backward is a rule."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        compute: Callable[[Tensor], Tensor],
        rule: Rule,
        settings: Mapping[str, Any],
    ) -> Tensor:
        with torch.enable_grad():
            leaf = input.detach().requires_grad_()
            output = compute(leaf)
        ctx.activation, ctx.rule = Activation(leaf, output, settings), rule
        ctx.set_materialize_grads(False)  # no gradient is not a gradient of 0
        return output.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        input_gradient = None if gradients[0] is None else ctx.rule(ctx.activation, gradients[0])
        return input_gradient, None, None, None


def own_functions(outputs: Tensor) -> list[str]:
    """Return the names of the model's custom autograd functions, which no function mode sees."""
    names, seen = [], set()
    stack: list[Any] = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.append(type(node).__name__.removesuffix("Backward"))
        stack += [following for following, _ in node.next_functions]
    return [name for name in names if name not in _OURS]


_OURS = (_Ruled.__name__, ContiguousGradient.__name__, "BackwardHookFunction")
"""Autograd functions that are not the model's own."""


def depends(value: object) -> bool:
    """Return whether a value depends on the inputs: all else in a copy is frozen."""
    if isinstance(value, Tensor):
        return value.requires_grad
    if value is None or isinstance(value, (bool, int, float, str, torch.dtype, torch.device)):
        return False
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in tree_leaves(value))


def has_tensor(value: object) -> bool:
    """Return whether a value is or holds a tensor."""
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


def function_name(function: Any) -> str:
    """Return a function's name: that of `mul` for `__rmul__`, of the property for its getter."""
    if isinstance(function, torch._ops.OpOverload):
        return str(function._schema.name.partition("::")[2])
    name = str(function.__name__)
    if name == "__get__":
        name = str(function.__self__.__name__)
    return name.removeprefix("__").removesuffix("__")


def words(text: str) -> frozenset[str]:
    """Return the words of a text: a list of names that is easy to read."""
    return frozenset(text.split())


_SUMS = words(
    "add add_ radd iadd sub sub_ subtract rsub isub neg cat concat concatenate stack split "
    "tensor_split chunk unbind view view_as reshape reshape_as flatten unflatten squeeze unsqueeze "
    "permute transpose swapaxes movedim t T mT contiguous clone to float double half bfloat16 type "
    "type_as "
    "expand expand_as repeat tile mean sum cumsum getitem select narrow index_select gather pad "
    "roll flip unfold fold adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d avg_pool1d "
    "avg_pool2d avg_pool3d interpolate upsample pixel_shuffle pixel_unshuffle channel_shuffle "
    "requires_grad_ identity"
)
_PRODUCTS = words(
    "mul mul_ multiply rmul imul matmul rmatmul mm bmm linear addmm conv1d conv2d conv3d "
    "conv_transpose1d conv_transpose2d conv_transpose3d einsum"
)
_QUOTIENTS = words("div div_ divide truediv itruediv")
_TRAINING = {"batch_norm": 5, "dropout": 2, "dropout1d": 2, "dropout2d": 2, "dropout3d": 2}


def _is_linear(
    name: str, given: Sequence[bool], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> bool:
    """Return whether a function is known to be linear in those of its values that depend."""
    if name in _TRAINING:
        place = _TRAINING[name]
        training = args[place] if len(args) > place else kwargs.get("training", False)
        return sum(given) == 1 and not training
    if name == "einsum":
        return sum(map(depends, tree_leaves(args))) == 1
    return (
        name in _SUMS
        or (name in _PRODUCTS and sum(given) == 1)
        or (name in _QUOTIENTS and sum(given) == 1 and depends(args[0]))
    )

"""Balanced gradients: backward rules that keep the sum of input times gradient.

A mode of torch sees every function that a model calls in its thread. The values stay those of the
model; only what autograd records is changed. `balanced_check` proves on a model that nothing was
missed.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from torch.overrides import TorchFunctionMode

from .._validation.arrays import as_number
from .._validation.settings import Check, shown
from ..errors import require
from .activations import depends, function_name
from .balanced_rules import RULES, run_in_place
from .function_modes import opened
from .norms import NORMS
from .rewriting import AttentionRule, Function, Rewriting, TorchCall, set_role, shared_role


def _check(name: str, value: object) -> None:
    require(
        isinstance(as_number(value), bool) or value in ("constant", "full"),
        f"expected {name} true, false, 'constant' (the same as true) or 'full', got {shown(value)}",
    )


AnyBalanced = Annotated[bool | str, Check(_check)]
"""A setting: whether gradients are balanced, or by which `AttentionRule`; True is "constant"."""


def attention_rule(balanced: bool | str) -> AttentionRule | None:
    """Return the rule that a setting asks for; None for the gradients of the model itself."""
    if not balanced:
        return None
    return "full" if balanced == "full" else "constant"


class BalancedGradients(TorchFunctionMode):
    """Rewrites what autograd records while a model runs in this thread; the values stay.

    With relevance = input x gradient, each rule passes on the relevance that it receives, biases
    aside:

    - layer, group, instance and RMS norms: the deviation is a constant, the mean is not; so are
      square roots, norms and divisors in norms that are written by hand;
    - an elementwise function f of x passes (f(x) - f(0)) / x in place of f'(x), and f(0) counts as
      a bias; a chain of elementwise functions of one tensor is one function, so that activations
      written by hand (`x * sigmoid(1.702 * x)`) are known;
    - a product of n factors that depend on the input: the gradient of each is divided by n;
    - a sigmoid that gates another activation is a constant;
    - attention: so are its weights (`attention="constant"`); or they are factors like others
      (`"full"`): queries and keys receive a quarter, values a half, and the softmax keeps its own
      derivative, which does not conserve;
    - functions that are homogeneous (ReLU, maxima) or linear keep their derivative.

    Args:
        attention: one of "constant" and "full".

    Attributes:
        rewriting: counts what was rewritten.

    References:
        Mehri et al. 2025, "LibraGrad", CVPR, arXiv 2411.16760; Achtibat et al. 2024, "AttnLRP",
        ICML, arXiv 2402.05602. The chains, f(0) as a bias and constant gates are ours.
    """

    def __init__(self, attention: AttentionRule = "constant") -> None:
        super().__init__()
        self.rewriting = Rewriting(attention, self)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not torch.is_grad_enabled():
            return func(*args, **kwargs)
        name, in_place = _name_of(func)
        inner = None if name in NORMS else opened(func)
        if inner is not None:
            with self:
                return inner(*args, **kwargs)
        call, rule = TorchCall(func, name, args, kwargs), RULES.get(name)
        if rule is not None and any(map(depends, (*args, *kwargs.values()))):
            if in_place:
                return run_in_place(rule, self.rewriting, call)
            return rule(self.rewriting, call)
        values = call.tensors[:1] if name in _LIKE else call.tensors
        role, result = shared_role(values), call.run()
        set_role(result, role)
        return result


@functools.cache
def _name_of(func: Function) -> tuple[str, bool]:
    """Return a function's plain name, and whether it works in place."""
    name = function_name(func)
    plain = _SAME.get(name.removesuffix("_"), name.removesuffix("_"))
    in_place = name.endswith("_") or name in _IN_PLACE
    return plain, in_place


_SAME = {
    **{f"{prefix}{name}": name for prefix in ("i", "r") for name in ("mul", "add", "matmul")},
    **{"isub": "sub", "subtract": "sub", "multiply": "mul", "clip": "clamp", "arctan": "atan"},
    **{"truediv": "div", "divide": "div", "true_divide": "div", "itruediv": "div", "idiv": "div"},
    **{"rtruediv": "rdiv", "special_softmax": "softmax", "special_expit": "sigmoid"},
    **{f"conv{kind}{n}d": "conv" for kind in ("", "_transpose") for n in (1, 2, 3)},
    "ipow": "pow",
}
_IN_PLACE = frozenset(("imul", "iadd", "isub", "itruediv", "idiv", "ipow"))
_LIKE = frozenset(("expand_as", "view_as", "reshape_as", "type_as", "to"))
"""Functions whose second tensor gives a shape or a type alone."""

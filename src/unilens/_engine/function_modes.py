"""Python functions of torch, opened so that a mode sees what they call."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

_CHECKS = (
    "has_torch_function",
    "has_torch_function_unary",
    "has_torch_function_variadic",
)
_OPENED = ("torch.nn.functional", "torch.functional", "torch.autograd")
"""Modules of such functions; a method of Tensor calls its own C++ form, by the same name."""


@functools.cache
def opened(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return a function that does the same, but whose calls an active mode sees one by one.

    A mode of torch sees a Python function such as `multi_head_attention_forward` as one call, and
    is off while that runs. The copy leaves out the function's own check for modes, so that it can
    be called while the mode is on.

    Returns:
        The copy; None for functions of C++, whose calls no mode sees, and for methods.
    """
    if not isinstance(function, types.FunctionType) or function.__module__ not in _OPENED:
        return None
    if not set(_CHECKS) & set(function.__code__.co_names):
        return None
    unchecked = dict.fromkeys(_CHECKS, lambda *_: False)
    copied = types.FunctionType(
        function.__code__,
        {**function.__globals__, **unchecked},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copied.__kwdefaults__ = function.__kwdefaults__
    return copied

"""The rules of balanced gradients for elementwise functions, quotients and deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..errors import NotApplicableError
from .activations import depends
from .rewriting import Chain, QuotientGradient, Rewriting, TorchCall, role_of, set_role, shared_role

_GATES = frozenset(("sigmoid", "hardsigmoid"))


def elementwise(rewriting: Rewriting, call: TorchCall) -> Any:
    """Pass (f(x) - f(0)) / x back to the root of the chain."""
    if len(call.tensors) != 1:
        raise no_rule(f"{call.name} with a tensor as its setting")
    return along_chain(rewriting, call)


def along_chain(rewriting: Rewriting, call: TorchCall) -> Tensor:
    """Return an elementwise function of one root, with its quotient in place of its derivative."""
    given = call.dependent
    if given[0].is_complex():
        raise no_rule(f"{call.name} of complex numbers")
    chain = _extended(call, given)
    root, at_zero, slope = chain.root, float(chain.at_zero.detach()), chain.slope_at_zero
    if not math.isfinite(at_zero):
        if call.name in ("div", "rdiv", "reciprocal"):
            return held(rewriting, call)
        raise no_rule(f"{call.name}, which is not finite at 0")
    rewriting.rewritten[call.name] += 1
    with torch.no_grad():
        value = call.run()
        near = root.abs() <= (0.0 if at_zero == 0 else torch.finfo(root.dtype).eps ** 0.5)
        slope = slope if math.isfinite(slope) else 0.0
        factor = ((value - at_zero) / root).masked_fill_(near, slope)
    result: Tensor = QuotientGradient.apply(root, factor, (value,))
    chain.end_at(result)
    set_role(result, "gate" if call.name in _GATES else None)
    return result


def pointwise(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a function with its own derivative, and continue the chain."""
    given, role = call.dependent, shared_role(call.tensors)
    continued = _extended(call, given) if continues(call) else None
    result = call.run()
    if continued is not None and not result.is_complex():
        continued.end_at(result)
    set_role(result, role)
    return result


def continues(call: TorchCall) -> bool:
    """Return whether a result is an elementwise function of one root: all else are numbers."""
    given = call.dependent
    others = (value for value in call.tensors if not value.requires_grad)
    if any(value.ndim for value in others) or any(value.is_complex() for value in given):
        return False
    return len({id(Chain.of(value).root) for value in given}) == 1


def _extended(call: TorchCall, given: Sequence[Tensor]) -> Chain:
    """Return a chain with a call at its end, whose tensors are all in the chain."""
    at_zero = {id(value): Chain.of(value).at_zero for value in given}
    with saved_tensors_hooks(_same, _same):  # those of a checkpoint are for the model's tensors
        return Chain.of(given[0])._replace(at_zero=call.with_tensors(at_zero).run())


def _same(value: Tensor) -> Tensor:
    return value


def held(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold the result constant: the deviation of a norm that is written by hand."""
    rewriting.rewritten[f"{call.name}, held constant"] += 1
    return call.with_constants(call.dependent).run()


def held_first(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold the first of two results constant, the deviation; the mean keeps its gradient."""
    rewriting.rewritten[f"{call.name}, held constant"] += 1
    deviation, mean = call.run()
    return deviation.detach(), mean


def step(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a function whose derivative is 0 wherever it has one."""
    return call.with_constants(call.dependent).run()


def root(rewriting: Rewriting, call: TorchCall) -> Any:
    """Rewrite a square root, or a power below 1, which scales where it meets another activation."""
    result = elementwise(rewriting, call)
    set_role(result, "deviation")
    return result


def power(rewriting: Rewriting, call: TorchCall) -> Any:
    """Rewrite a power; those below 0 are deviations, and constants."""
    base, exponent = call.argument(0, "input", "self"), call.argument(1, "exponent")
    if isinstance(exponent, Tensor) or not isinstance(base, Tensor):
        raise no_rule("a power with a tensor as its exponent")
    if exponent < 0:
        return held(rewriting, call)
    return (elementwise if exponent >= 1 else root)(rewriting, call)


def reciprocal(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold the reciprocal of a deviation or of a statistic constant; others are elementwise."""
    if role_of(call.dependent[0]) in ("deviation", "statistic"):
        return held(rewriting, call)
    return elementwise(rewriting, call)


def quotient(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold a divisor constant, unless it belongs to the same chain as the dividend."""
    dividend, divisor = call.argument(0, "input", "self"), call.argument(1, "other")
    if call.name == "rdiv":
        dividend, divisor = divisor, dividend
    if not depends(divisor):
        return pointwise(rewriting, call)
    if not depends(dividend) and not isinstance(dividend, Tensor):
        return reciprocal(rewriting, call)
    if continues(call):
        return along_chain(rewriting, call)
    rewriting.rewritten["a divisor, held constant"] += 1
    role = role_of(dividend) if isinstance(dividend, Tensor) else None
    result = call.with_constants([divisor]).run()
    set_role(result, role)
    return result


def no_rule(what: str) -> NotApplicableError:
    """Return the error of a function without a rule."""
    return NotApplicableError(
        f"expected functions that balanced gradients have a rule for, got {what}; leave out "
        "balanced=, or use method='ig'"
    )

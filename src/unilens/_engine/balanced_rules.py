"""The rules of balanced gradients, by the function that they rewrite."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..errors import NotApplicableError
from .activations import words
from .norms import NORMS
from .rewriting import (
    CHAIN,
    NEAR,
    WEIGHTS,
    Call,
    Carried,
    Chain,
    Rewriting,
    Scaled,
    depends,
    mark_like,
    with_marks,
)

Rule = Callable[[Rewriting, Call], Any]


def run_in_place(rule: Rule, rewriting: Rewriting, call: Call) -> Tensor:
    """Return the input of a call in place with its result written into it."""
    target = call.args[0] if call.args else call.kwargs["input"]
    if rule is _affine or (rule in (_product, _quotient) and len(call.dependent) < 2):
        result = call.run()
        return with_marks(target, None) if result is target else result
    plain = getattr(Tensor, call.name, None) or getattr(torch.nn.functional, call.name)
    before = with_marks(target.clone(), target)
    result = rule(rewriting, call.with_tensors({id(target): before})._replace(func=plain))
    return with_marks(target.copy_(result), result)


def _norm(rewriting: Rewriting, call: Call) -> Any:
    """Hold a norm's deviation constant."""
    surrogate = NORMS[call.name](*call.args, **call.kwargs)
    if surrogate is None:  # by running statistics: linear
        return call.run()
    rewriting.rewritten[call.name] += 1
    return _carried(surrogate, call)


def _carried(surrogate: Tensor, call: Call) -> Tensor:
    with torch.no_grad():
        value = call.run()
    result: Tensor = Carried.apply(surrogate.to(value.dtype), (value,))
    return result


def _elementwise(rewriting: Rewriting, call: Call) -> Any:
    """Pass (f(x) - f(0)) / x back to the root of the chain."""
    (input,) = given = call.dependent
    others = [value for value in (*call.args, *call.kwargs.values()) if value is not input]
    if any(isinstance(value, Tensor) for value in others):
        raise _no_rule(f"{call.name} with a tensor as its setting")
    return _along_chain(rewriting, call, given, Chain.of(input))


def _along_chain(rewriting: Rewriting, call: Call, given: Sequence[Tensor], chain: Chain) -> Tensor:
    """Return an elementwise function of a root, with its quotient in place of its derivative."""
    chain = _extended(call, given, chain)
    root, at_zero, slope = chain.root, float(chain.at_zero.detach()), chain.slope_at_zero
    if not (math.isfinite(at_zero) and math.isfinite(slope)):
        if call.name in ("div", "rdiv"):  # a deviation
            return _held(rewriting, call)
        raise _no_rule(f"{call.name}, which is not finite at 0")
    rewriting.rewritten[call.name] += 1
    with torch.no_grad():
        value = call.run()
        near = root.abs() <= (0.0 if at_zero == 0 else NEAR)
        factor = ((value - at_zero) / root).masked_fill_(near, slope)
    result: Tensor = Scaled.apply(root, factor, (value,))
    setattr(result, CHAIN, chain)
    if call.name in _GATES:
        setattr(result, WEIGHTS, "gate")
    return result


def _extended(call: Call, given: Sequence[Tensor], chain: Chain) -> Chain:
    """Return a chain with a call at its end, whose tensors are all in the chain."""
    at_zero = {id(value): Chain.of(value).at_zero for value in given}
    with saved_tensors_hooks(_same, _same):  # those of a checkpoint are for the model's tensors
        return chain._replace(at_zero=call.with_tensors(at_zero).run())


def _same(value: Tensor) -> Tensor:
    return value


def _power(rewriting: Rewriting, call: Call) -> Any:
    """Rewrite a power; roots and negative powers count as deviations, and are constants."""
    exponent = call.args[1] if len(call.args) > 1 else call.kwargs["exponent"]
    if isinstance(exponent, Tensor) or not isinstance(call.args[0], Tensor):
        raise _no_rule("a power with a tensor as its exponent")
    return (_elementwise if exponent >= 1 else _held)(rewriting, call)


def _held(rewriting: Rewriting, call: Call) -> Any:
    """Hold the result constant: the deviation of a norm that is written by hand."""
    rewriting.rewritten[f"{call.name}, held constant"] += 1
    return call.with_tensors({id(value): value.detach() for value in call.dependent}).run()


def _held_first(rewriting: Rewriting, call: Call) -> Any:
    """Hold the first of two results constant, the deviation; the mean keeps its gradient."""
    rewriting.rewritten[f"{call.name}, held constant"] += 1
    deviation, mean = call.run()
    return deviation.detach(), mean


def _affine(rewriting: Rewriting, call: Call) -> Any:
    """Run a function with its own derivative, and keep the chain."""
    given = call.dependent
    result = call.run()
    if _continues(call, given):
        chain = Chain.of(given[0])
        setattr(result, CHAIN, _extended(call, given, chain))
    mark_like(result, call.args, call.kwargs)
    return result


def _product(rewriting: Rewriting, call: Call) -> Any:
    """Divide the gradient of a product among its factors, or hold attention weights constant."""
    factors = _factors(call)
    given = [value for value in factors if isinstance(value, Tensor) and value.requires_grad]
    if len(given) < 2:
        return _affine(rewriting, call)
    if call.name in _ELEMENTWISE_PRODUCTS and _continues(call, given):
        return _along_chain(rewriting, call, given, Chain.of(given[0]))
    kinds = ("gate", "attention") if rewriting.attention == "constant" else ("gate",)
    weights = [value for value in given if getattr(value, WEIGHTS, None) in kinds]
    if 0 < len(weights) < len(given):
        rewriting.rewritten[f"{call.name} with constant weights"] += 1
        return call.with_tensors({id(value): value.detach() for value in weights}).run()
    rewriting.rewritten[f"{call.name} of {len(given)} activations"] += 1
    share = 1 / len(given)
    return call.with_tensors({id(value): Scaled.apply(value, share) for value in given}).run()


def _quotient(rewriting: Rewriting, call: Call) -> Any:
    """Hold a divisor constant, unless it belongs to the same chain as the dividend."""
    given = call.dependent
    dividend, divisor = (
        call.args[:2] if len(call.args) > 1 else (call.args[0], call.kwargs["other"])
    )
    if call.name == "rdiv":
        dividend, divisor = divisor, dividend
    if not depends(divisor):
        return _affine(rewriting, call)
    if _continues(call, given):
        return _along_chain(rewriting, call, given, Chain.of(given[0]))
    rewriting.rewritten["a divisor, held constant"] += 1
    return call.with_tensors({id(divisor): divisor.detach()}).run()


def _continues(call: Call, given: Sequence[Tensor]) -> bool:
    """Return whether a result is an elementwise function of one root: all else are numbers."""
    values = [*call.args, *call.kwargs.values()]
    own = {id(value) for value in given}
    others = (value for value in values if id(value) not in own)
    if any(isinstance(value, Tensor) and (value.ndim or value.requires_grad) for value in others):
        return False
    return len({id(Chain.of(value).root) for value in given}) == 1


def _attention(rewriting: Rewriting, call: Call) -> Any:
    """Hold the weights of attention constant, or give a quarter to queries and keys."""
    rewriting.rewritten[call.name] += 1
    names = ("query", "key", "value")
    tensors = [*call.args[:3], *(call.kwargs[name] for name in names[len(call.args) :])]
    if any(depends(value) for value in (*call.args[3:], call.kwargs.get("attn_mask"))):
        raise _no_rule("attention whose mask depends on the input")
    if rewriting.attention == "constant":
        held = [value.detach() for value in tensors[:2]] + tensors[2:]
    else:
        shares = zip(tensors, (0.25, 0.25, 0.5), strict=True)
        held = [Scaled.apply(value, share) for value, share in shares]
    rest = {name: value for name, value in call.kwargs.items() if name not in names}
    return call.func(*held, *call.args[3:], **rest)


def _weights(rewriting: Rewriting, call: Call) -> Any:
    """Run a softmax, and mark what it returns as attention weights."""
    result = call.run()
    setattr(result, WEIGHTS, "attention")
    return result


def _gated(rewriting: Rewriting, call: Call) -> Any:
    """Run a gated linear unit by its formula, with a constant gate."""
    dim = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", -1)
    value, gate = (call.args[0] if call.args else call.kwargs["input"]).chunk(2, dim)
    rewriting.rewritten["glu with a constant gate"] += 1
    return value * gate.sigmoid().detach()


def _cosine(rewriting: Rewriting, call: Call) -> Any:
    """Hold both norms of a cosine similarity constant; its two vectors are factors."""
    rewriting.rewritten[call.name] += 1
    names = ("x1", "x2", "dim", "eps")
    settings = {"dim": 1, "eps": 1e-8, **dict(zip(names, call.args, strict=False)), **call.kwargs}
    dim, scaled = settings["dim"], []
    for vector in torch.broadcast_tensors(settings["x1"], settings["x2"]):
        norm = vector.detach().norm(dim=dim, keepdim=True).clamp_min(settings["eps"])
        scaled.append(vector / norm)
    share = 1 / max(1, sum(map(depends, scaled)))
    first, second = (Scaled.apply(vector, share) for vector in scaled)
    return _carried((first * second).sum(dim), call)


def _batch_norm(rewriting: Rewriting, call: Call) -> Any:
    """Run a batch norm by its running statistics, which is linear; refuse others."""
    training = call.args[5] if len(call.args) > 5 else call.kwargs.get("training", False)
    if training:
        raise _no_rule("a batch norm by the statistics of the batch")
    return call.run()


def _no_rule(what: str) -> NotApplicableError:
    return NotApplicableError(
        f"expected functions that balanced gradients have a rule for, got {what}; leave out "
        "balanced=, or use method='ig'"
    )


def _factors(call: Call) -> Sequence[Any]:
    """Return the factors of a product; what is added to it is not among them."""
    if call.name == "einsum":
        operands = call.args[1:]
        return operands[0] if isinstance(operands[0], (list, tuple)) else operands
    first, names = _FACTORS.get(
        call.name, (0, ("input", "other", "mat2", "vec2", "tensor", "weight"))
    )
    positional = call.args[first : first + 2]
    return [*positional, *(call.kwargs[name] for name in names if name in call.kwargs)]


_GATES = frozenset(("sigmoid", "hardsigmoid"))
_ELEMENTWISE_PRODUCTS = frozenset(("mul",))
_FACTORS = {
    **dict.fromkeys(("addmm", "addbmm", "baddbmm"), (1, ("batch1", "batch2", "mat1", "mat2"))),
    "addmv": (1, ("mat", "vec")),
    "addr": (1, ("vec1", "vec2")),
    "addcmul": (1, ("tensor1", "tensor2")),
}
"""Where the factors of a product begin, and their names, where they are not the first two."""


RULES: dict[str, Rule] = {
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(
        words(
            "gelu silu mish elu selu celu tanh sigmoid softplus hardswish hardsigmoid relu6 "
            "hardtanh hardshrink softshrink tanhshrink softsign log_sigmoid erf erfc exp expm1 "
            "exp2 log log2 log10 log1p sin cos tan atan sinh cosh asinh square clamp clamp_min "
            "clamp_max threshold"
        ),
        _elementwise,
    ),
    **dict.fromkeys(
        words("sqrt rsqrt reciprocal std var norm vector_norm matrix_norm linalg_vector_norm"),
        _held,
    ),
    **dict.fromkeys(("std_mean", "var_mean"), _held_first),
    **dict.fromkeys(words("add sub rsub neg negative relu leaky_relu abs"), _affine),
    **dict.fromkeys(
        words(
            "mul matmul mm bmm mv dot inner outer ger vdot kron linear bilinear conv einsum addmm "
            "addbmm baddbmm addmv addr addcmul"
        ),
        _product,
    ),
    **dict.fromkeys(("div", "rdiv"), _quotient),
    "pow": _power,
    "scaled_dot_product_attention": _attention,
    "softmax": _weights,
    "glu": _gated,
    "cosine_similarity": _cosine,
    "batch_norm": _batch_norm,
}

"""The rules of balanced gradients, by the function that they rewrite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .activations import depends, words
from .attention import plain_attention
from .elementwise_rules import (
    along_chain,
    continues,
    elementwise,
    held,
    held_first,
    no_rule,
    pointwise,
    power,
    quotient,
    reciprocal,
    root,
    step,
)
from .norms import NORMS, instance_norm_of_torch
from .rewriting import (
    FactorGradient,
    Rewriting,
    SurrogateGradient,
    TorchCall,
    role_of,
    set_role,
    shared_role,
)

Rule = Callable[[Rewriting, TorchCall], Any]
_CONSTANT_ROLES = {
    "constant": ("deviation", "gate", "attention"),
    "full": ("deviation", "gate"),
}
"""Factors that are held constant, by the rule of attention weights, the first to be held first."""


def run_in_place(rule: Rule, rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a call in place by the rule of its plain form; return its input."""
    target = call.argument(0, "input", "self")
    if rule is pointwise or (rule in (_product, quotient) and len(call.dependent) < 2):
        role = shared_role(call.tensors)
        result = call.run()
        set_role(result, role)
        return result
    plain = getattr(Tensor, call.name, None) or getattr(torch.nn.functional, call.name)
    before = target.clone()
    set_role(before, role_of(target))
    result = rule(rewriting, call.with_tensors({id(target): before})._replace(func=plain))
    target.copy_(result)
    set_role(target, role_of(result))
    return target


def _norm(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold a norm's deviation constant."""
    norm = instance_norm_of_torch if call.func is torch.instance_norm else NORMS[call.name]
    input = call.argument(0, "input")
    if any(value.requires_grad and value is not input for value in call.tensors):
        raise no_rule(f"{call.name} whose weight or bias depends on the input")
    surrogate = norm(*call.args, **call.kwargs)
    if surrogate is None:  # by running statistics: linear
        return call.run()
    rewriting.rewritten[call.name] += 1
    return _with_surrogate(surrogate, call)


def _with_surrogate(surrogate: Tensor, call: TorchCall) -> Tensor:
    with torch.no_grad():
        value = call.run()
    result: Tensor = SurrogateGradient.apply(surrogate.to(value.dtype), (value,))
    return result


def _product(rewriting: Rewriting, call: TorchCall) -> Any:
    """Divide the gradient of a product among its factors, or hold factors that weigh constant."""
    factors = [value for value in _factors(call) if isinstance(value, Tensor)]
    given = [value for value in factors if value.requires_grad]
    if len(given) < 2:
        return _scaled(rewriting, call)
    if call.name == "mul" and continues(call):
        return along_chain(rewriting, call)
    constants: list[Tensor] = []
    for role in _CONSTANT_ROLES[rewriting.attention]:
        weighing = [value for value in given if role_of(value) == role]
        if len(weighing) < len(given):
            constants += weighing
            given = [value for value in given if role_of(value) != role]
    if constants:
        rewriting.rewritten[f"{call.name} with constant weights"] += 1
        call = call.with_constants(constants)
    if len(given) == 1:
        return call.run()
    rewriting.rewritten[f"{call.name} of {len(given)} activations"] += 1
    share = 1 / len(given)
    return call.with_tensors(
        {id(value): FactorGradient.apply(value, share) for value in given}
    ).run()


def _scaled(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a product of one activation with constants.

    Attention weights stay what they are where heads are mixed; other roles end at a layer.
    """
    if call.name == "mul":
        return pointwise(rewriting, call)
    role, result = shared_role(call.tensors), call.run()
    set_role(result, role if role == "attention" and result.ndim > 3 else None)
    return result


def _factors(call: TorchCall) -> Sequence[Any]:
    """Return the factors of a product; what is added to it is not among them."""
    if call.name == "einsum":
        operands = call.args[1:]
        return operands[0] if isinstance(operands[0], (list, tuple)) else operands
    first, names = _FACTORS.get(
        call.name, (0, ("input", "other", "mat2", "vec2", "tensor", "weight", "x", "y"))
    )
    positional = call.args[first : first + 2]
    return [*positional, *(call.kwargs[name] for name in names if name in call.kwargs)]


_FACTORS = {
    **dict.fromkeys(("addmm", "addbmm", "baddbmm"), (1, ("batch1", "batch2", "mat1", "mat2"))),
    "addmv": (1, ("mat", "vec")),
    "addr": (1, ("vec1", "vec2")),
    "addcmul": (1, ("tensor1", "tensor2")),
}
"""Where the factors of a product begin, and their names, where they are not the first two."""


def _attention(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold the weights of attention constant; the other rule follows from its formula."""
    names = ("query", "key", "value", "attn_mask")
    *weighing, value, mask = (call.argument(place, name) for place, name in enumerate(names))
    weighing = [tensor for tensor in (*weighing, mask) if depends(tensor)]
    if not weighing:
        return call.run()
    rewriting.rewritten[call.name] += 1
    if rewriting.attention == "constant" and depends(value):
        return call.with_constants(weighing).run()
    with rewriting.mode:
        return plain_attention(*call.args, **call.kwargs)[2]


def _weights(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a softmax, which returns attention weights."""
    result = call.run()
    set_role(result, "attention")
    return result


def _statistic(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a reduction: its reciprocal scales."""
    role, result = shared_role(call.tensors), call.run()
    set_role(result, role or "statistic")
    return result


def _gated(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a gated linear unit by its formula, with a constant gate."""
    value, gate = call.argument(0, "input").chunk(2, call.argument(1, "dim", default=-1))
    rewriting.rewritten["glu with a constant gate"] += 1
    return value * gate.sigmoid().detach()


def _cosine(rewriting: Rewriting, call: TorchCall) -> Any:
    """Hold both norms of a cosine similarity constant; its two vectors are factors."""
    rewriting.rewritten[call.name] += 1
    dim, eps = call.argument(2, "dim", default=1), call.argument(3, "eps", default=1e-8)
    vectors = torch.broadcast_tensors(call.argument(0, "x1"), call.argument(1, "x2"))
    share = 1 / max(1, sum(map(depends, vectors)))
    first, second = (
        FactorGradient.apply(
            vector / vector.detach().norm(dim=dim, keepdim=True).clamp_min(eps), share
        )
        for vector in vectors
    )
    return _with_surrogate((first * second).sum(dim), call)


def _batch_norm(rewriting: Rewriting, call: TorchCall) -> Any:
    """Run a batch norm by its running statistics, which is linear; refuse others."""
    if call.argument(5, "training", default=False):
        raise no_rule("a batch norm by the statistics of the batch")
    return call.run()


RULES: dict[str, Rule] = {
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(
        words(
            "gelu silu mish elu selu celu tanh sigmoid softplus hardswish hardsigmoid relu6 "
            "hardtanh hardshrink softshrink tanhshrink softsign log_sigmoid erf erfc exp expm1 "
            "exp2 log log2 log10 log1p sin cos tan atan sinh cosh asinh square clamp clamp_min "
            "clamp_max threshold"
        ),
        elementwise,
    ),
    **dict.fromkeys(
        words("rsqrt std var norm vector_norm matrix_norm linalg_vector_norm linalg_norm"), held
    ),
    **dict.fromkeys(("std_mean", "var_mean"), held_first),
    **dict.fromkeys(words("sign sgn round floor ceil trunc heaviside"), step),
    **dict.fromkeys(words("add sub rsub neg negative relu leaky_relu abs"), pointwise),
    **dict.fromkeys(words("mean sum amax amin"), _statistic),
    **dict.fromkeys(
        words(
            "mul matmul mm bmm mv dot inner outer ger vdot kron linear bilinear conv einsum addmm "
            "addbmm baddbmm addmv addr addcmul tensordot linalg_matmul linalg_vecdot vecdot"
        ),
        _product,
    ),
    **dict.fromkeys(("div", "rdiv"), quotient),
    "sqrt": root,
    "reciprocal": reciprocal,
    "pow": power,
    "scaled_dot_product_attention": _attention,
    "softmax": _weights,
    "glu": _gated,
    "cosine_similarity": _cosine,
    "batch_norm": _batch_norm,
}

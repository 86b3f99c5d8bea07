"""Batch norms folded into the convolutions before them, on a copy: the same function, less work."""

from __future__ import annotations

import copy
import logging
from collections import Counter
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import batch_norm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .smooth import Smooth

_log = logging.getLogger(__name__)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold_batch_norms(module: nn.Module, sample: Tensor) -> nn.Module:
    """Return an equivalent module with its batch norms folded, or `module` itself.

    What comes back folded is a graph of functions: it keeps no state, and threads can share it.

    `module` comes back where there is nothing to fold, where it cannot be traced (control flow
    that depends on data, for example), where it has gradients of its own that a trace would lose
    (custom autograd functions), where it has hooks, and where the folded copy's outputs at `sample`
    differ by more than rounding, as they do for convolutions that change their weights on the fly.

    Args:
        module: in eval mode; it is not changed.
        sample: inputs `(m, *S)` at which the two are compared.
    """
    if isinstance(module, Smooth):
        inner = fold_batch_norms(module.model, sample)
        return module if inner is module.model else Smooth(inner, module.beta)
    if not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules()):
        return module
    try:
        if any(_has_hooks(part) for part in module.modules()):
            return module
        with torch.enable_grad():
            expected = module(sample.detach().clone().requires_grad_())
        if _has_own_gradients(expected):
            return module
        folded = _folded(module)
        return folded if folded is not None and _gives(folded, expected, sample) else module
    except Exception as error:  # tracing runs the user's forward: it can raise anything
        _log.debug("batch norms not folded, the model cannot be traced: %s", error)
        return module


def _has_hooks(part: nn.Module) -> bool:
    return bool(
        part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )


def _has_own_gradients(outputs: Tensor) -> bool:
    seen: set[Any] = set()
    left = [outputs.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return True
        seen.add(node)
        left += [following for following, _ in node.next_functions]
    return False


def _gives(folded: nn.Module, expected: Tensor, sample: Tensor) -> bool:
    with torch.no_grad():
        got = folded(sample)
        return bool((got - expected).abs().max() <= 1e-4 * expected.abs().max())


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        own = isinstance(m, (*_CONVOLUTIONS, nn.MultiheadAttention, Smooth))
        return own or super().is_leaf_module(m, module_qualified_name)


def _folded(module: nn.Module) -> nn.Module | None:
    graph = _Tracer().trace(module)
    traced = fx.GraphModule(module, graph)
    convolutions = [
        node
        for node in graph.nodes
        if node.op == "call_module" and isinstance(traced.get_submodule(node.target), _CONVOLUTIONS)
    ]
    calls = Counter(node.target for node in convolutions)
    count = 0
    for node in convolutions:
        users = [user for user in node.users if not _reads_shape(user)]
        if calls[node.target] != 1 or len(users) != 1:
            continue
        norm = _norm(traced, users[0], node)
        if norm is None:
            continue
        folded = _fuse(traced.get_submodule(node.target), norm)
        name = f"folded_{count}"
        traced.add_submodule(name, folded)
        node.target = name
        users[0].replace_all_uses_with(node)
        graph.erase_node(users[0])
        count += 1
    if not count:
        return None
    graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    return traced.eval().requires_grad_(False)


def _reads_shape(user: fx.Node) -> bool:
    of_value = user.op == "call_function" and user.target is getattr
    return (of_value and user.args[1] in ("ndim", "shape", "dtype", "device")) or (
        user.op == "call_method" and user.target in ("size", "dim")
    )


class _Norm(NamedTuple):
    """What a batch norm in eval mode applies."""

    mean: Tensor
    variance: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


_ARGUMENTS = (
    "input",
    "running_mean",
    "running_var",
    "weight",
    "bias",
    "training",
    "momentum",
    "eps",
)


def _norm(traced: fx.GraphModule, user: fx.Node, convolution: fx.Node) -> _Norm | None:
    """Return the batch norm that the node applies to the convolution's output, if it is one."""
    if user.op == "call_module":
        part: Any = traced.get_submodule(str(user.target))
        if type(part) not in _BATCH_NORMS or part.running_mean is None:
            return None
        return _Norm(part.running_mean, part.running_var, part.weight, part.bias, part.eps)
    if user.op != "call_function" or user.target is not batch_norm:
        return None
    given: dict[str, Any] = {"training": False, "eps": 1e-5}
    given |= dict(zip(_ARGUMENTS, user.args, strict=False))
    given |= user.kwargs
    mean, variance, weight, bias = (_attribute(traced, given.get(k)) for k in _ARGUMENTS[1:5])
    if given["input"] is not convolution or given["training"] or mean is None or variance is None:
        return None
    return _Norm(mean, variance, weight, bias, float(given["eps"]))


def _attribute(traced: fx.GraphModule, node: Any) -> Tensor | None:
    if node is None:
        return None
    value: Any = traced
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return cast(Tensor, value)


def _fuse(convolution: Any, norm: _Norm) -> nn.Module:
    """Return a copy of a convolution that also applies the batch norm; fused in float64."""
    fused = copy.copy(convolution)
    fused._parameters = dict(convolution._parameters)
    own = convolution.weight
    weight, bias = fuse_conv_bn_weights(
        own.detach().double(),
        _double(convolution.bias),
        norm.mean.double(),
        norm.variance.double(),
        norm.eps,
        _double(norm.weight),
        _double(norm.bias),
    )
    fused.weight = nn.Parameter(weight.to(own.dtype), requires_grad=False)
    fused.bias = nn.Parameter(bias.to(own.dtype), requires_grad=False)
    return cast(nn.Module, fused)


def _double(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach().double()

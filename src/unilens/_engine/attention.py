"""The attention weights of a model's forward pass, recorded while the model stays as it is.

A mode of torch sees every attention that a module or function computes in this thread: the fused
kernels, which keep no weights, are computed by their formula, and in attention written out by hand
a softmax over the last dimension, as the left factor of a product with an activation, is the
weights.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from .activations import depends, function_name, words
from .function_modes import opened

_PASSED_ON = words(
    "dropout dropout_ contiguous clone reshape view view_as flatten unflatten squeeze unsqueeze "
    "expand to type type_as float double half bfloat16"
)
"""Functions between the softmax and the product that leave the weights as they are."""
_PRODUCTS = frozenset(("matmul", "bmm", "einsum"))
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class ModuleCall:
    """One call of a module in the recorded pass.

    Attributes:
        name: of the module.
        number: how many calls of the module came before, as in networks that share their layers.
        inputs: the tensors that it received.
        outputs: the tensors that it returned, with their graph.
        passed_on: the tensors with which the model went on: clones, which it may overwrite.
        has_layers: whether the module has submodules.
    """

    def __init__(
        self, name: str, number: int, inputs: Sequence[Tensor], has_layers: bool = False
    ) -> None:
        self.name, self.number, self.inputs = name, number, inputs
        self.has_layers = has_layers
        self.outputs: list[Tensor] = []
        self.passed_on: list[Tensor] = []

    def tokens(self, count: int) -> Tensor | None:
        """Return the output that is one vector for each token, `(1, N, D)` or `(N, 1, D)`."""
        return tokens_in(self.outputs, count)

    def receives(self, other: ModuleCall, count: int) -> bool:
        """Return whether an input is the tokens that another call returned."""
        pairs = zip(other.outputs, other.passed_on, strict=True)
        tokens = [pair for pair in pairs if _are_tokens(pair[0], count)]
        return any(
            given is passed_on or torch.equal(given, output)
            for output, passed_on in tokens[:1]
            for given in self.inputs
            if given.shape == output.shape
        )


class Attention(NamedTuple):
    """One attention of the recorded pass.

    Attributes:
        weights: the tensor that multiplies the values, with its graph, `(..., N, M)`.
        values: `(..., M, D)`, with their graph.
        modules: the running modules, outermost first.
    """

    weights: Tensor
    values: Tensor
    modules: tuple[ModuleCall, ...]


class AttentionRecorder(TorchFunctionMode):
    """Records the attention of a module's forward pass at one input, in this thread.

    Args:
        module: a private copy; hooks are added to it.

    Attributes:
        attentions: in the order of the pass.
        calls: of modules that have returned, in that order.
        grids: spatial shapes of the outputs of convolutions before the first attention.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.attentions: list[Attention] = []
        self.calls: list[ModuleCall] = []
        self.grids: list[tuple[int, ...]] = []
        self._weights: dict[int, Tensor] = {}
        self._running: list[ModuleCall] = []
        self._calls: dict[str, int] = {}
        for name, submodule in module.named_modules():
            enter = functools.partial(self._enter, name)
            submodule.register_forward_pre_hook(enter, with_kwargs=True)
            submodule.register_forward_hook(self._leave)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            weights, values, output = plain_attention(*args, **kwargs)
            self._record(weights, values)
            return output
        if func is functional.multi_head_attention_forward and (plain := opened(func)):
            with self:
                return plain(*args, **kwargs)
        name = function_name(func)
        if name in _PRODUCTS:
            self._read_product(name, args, kwargs)
        result = func(*args, **kwargs)
        if self._keeps_weights(name, args, kwargs, result):
            self._weights[id(result)] = result
        return result

    def _keeps_weights(
        self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any
    ) -> bool:
        """Return whether a result is attention weights: of a softmax, or as they were."""
        given = args[0] if args else kwargs.get("input")
        if not isinstance(result, Tensor) or not isinstance(given, Tensor) or result.ndim < 2:
            return False
        if name == "softmax":
            dimension = args[1] if len(args) > 1 else kwargs.get("dim")
            return dimension in (-1, result.ndim - 1)
        same_rows = result.shape[-2:] == given.shape[-2:]
        return name in _PASSED_ON and same_rows and id(given) in self._weights

    def _read_product(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Record the left factor of a product where it is weights and the right an activation."""
        factors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if len(factors) != 2 or id(factors[0]) not in self._weights or not depends(factors[1]):
            return
        if name != "einsum" or _sums_over_last(str(args[0])):
            self._record(*factors)

    def _record(self, weights: Tensor, values: Tensor) -> None:
        if weights.requires_grad and values.requires_grad:
            self.attentions.append(Attention(weights, values, tuple(self._running)))

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        number = self._calls.get(name, 0)
        self._calls[name] = number + 1
        has_layers = next(module.children(), None) is not None
        self._running.append(ModuleCall(name, number, _tensors((args, kwargs)), has_layers))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        """Record what a module returned; the model goes on with clones of tokens."""
        call = self._running.pop()
        self.calls.append(call)
        call.outputs = _tensors(output)
        if isinstance(module, _CONVOLUTIONS) and not self.attentions:
            self.grids += [tuple(made.shape[2:]) for made in call.outputs]
        clones = {id(made): made.clone() for made in call.outputs if made.ndim == 3}
        call.passed_on = [clones.get(id(made), made) for made in call.outputs]
        return tree_map(lambda leaf: clones.get(id(leaf), leaf), output) if clones else None


def plain_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return weights, values and output of `scaled_dot_product_attention`, without dropout.

    Values are repeated where heads share them. A query that may attend to nothing has weights 0.
    """
    if enable_gqa:
        shared = query.shape[-3] // key.shape[-3]
        key, value = (given.repeat_interleave(shared, -3) for given in (key, value))
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    empty = scores.isneginf().all(-1, keepdim=True)
    weights = scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
    return weights, value, weights @ value


def _sums_over_last(equation: str) -> bool:
    """Return whether a product `...ij,...` sums over j and keeps i."""
    operands, _, result = equation.replace(" ", "").partition("->")
    left = operands.partition(",")[0]
    return len(left) > 1 and left[-1] not in result and left[-2] in result


def tokens_in(values: Any, count: int) -> Tensor | None:
    """Return the first tensor of what a module returned that is one vector for each token."""
    return next((value for value in _tensors(values) if _are_tokens(value, count)), None)


def _are_tokens(values: Tensor, count: int) -> bool:
    return values.ndim == 3 and sorted(values.shape[:2]) == sorted((1, count))


def _tensors(values: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]

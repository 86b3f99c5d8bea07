"""Activations replaced by other formulas while a model runs; the model itself is not changed.

A mode of torch sees every call of an activation before it is made, whether a module, a function or
a method makes it, and puts a formula in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .._validation.arrays import as_number
from ..errors import require
from .attention import plain_attention

Formula = Callable[..., Tensor]
"""Replaces an activation: it takes the input and the activation's own settings."""
_FLAT = 40
"""At beta x below -40 softplus stays at exp(-40) / beta: smaller numbers, and their products, would
be subnormal, which CPUs compute with many times as slowly."""


class Smooth(nn.Module):
    """A model whose rectified units have no kinks: softplus in place of ReLU and its kin.

    softplus(x) = log(1 + exp(beta x)) / beta. ReLU6 is softplus(x) - softplus(x - 6); clipping,
    leaky and parametric ReLU, hard sigmoid and hard swish are sums and products of softplus. The
    weights are the model's own; as beta grows, the outputs approach the model's. Maximum pooling,
    clamps and maxima stay unchanged.

    Args:
        model: any module; it is not changed.
        beta: sharpness, per unit of the activations' inputs; each smoothed kink is off by at most
            log(2) / beta.

    References:
        Dombrowski et al. 2019, arXiv 1906.07983, who use softplus to attack maps.

    Example:
        >>> model = nn.ReLU().eval()
        >>> Smooth(model, beta=1.0)(torch.tensor([0.0, 30.0]))
        tensor([ 0.6931, 30.0000])
    """

    def __init__(self, model: nn.Module, beta: float = 10.0) -> None:
        super().__init__()
        require(isinstance(model, nn.Module), f"expected a module, got {type(model).__name__}")
        beta = cast(float, as_number(beta))
        number = isinstance(beta, (int, float)) and not isinstance(beta, bool)
        require(number and 0 < beta < torch.inf, f"expected beta above 0, got {beta!r}")
        self.model, self.beta, self.training = model, float(beta), model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the outputs of the model with its kinks smoothed."""
        with _Rewritten(_smooth(self.beta)):
            return self.model(inputs)


class _Rewritten(TorchFunctionMode):
    """Computes activations by other formulas while it is entered, in this thread.

    Args:
        formulas: by the activation's name without the underscore of its form in place.
    """

    def __init__(self, formulas: Mapping[str, Formula]) -> None:
        super().__init__()
        self._formulas = formulas

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name, in_place = _ACTIVATIONS.get(func, ("", False))
        if name not in self._formulas:
            return func(*args, **kwargs)
        if in_place:
            kwargs = {**kwargs, "inplace": True}
        return _computed(self._formulas[name], *args, **kwargs)


class _TwiceDifferentiable(_Rewritten):
    """Also computes attention and convolutions so that they can be differentiated twice."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return plain_attention(*args, **kwargs)[2]
        if func is functional.multi_head_attention_forward:
            return _plain_attention(*args, **kwargs)
        if func in _CONVOLUTIONS:
            output = _convolution(_CONVOLUTIONS[func], *args, **kwargs)
            if output is not None:
                return output
        return super().__torch_function__(func, types, args, kwargs)


def twice_differentiable() -> _Rewritten:
    """Return the mode in which every function that a model calls can be differentiated twice.

    The hard sigmoid is written as ReLU6, and the hard swish with it; attention by its formula,
    since fused kernels have no second derivative; convolutions with fixed weights so that their
    second derivative costs what a convolution does. The values are the same to rounding. The mode
    belongs to the calling thread.
    """
    return _TwiceDifferentiable(_BY_RELU6)


def _plain_attention(
    *args: Any, need_weights: bool = True, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Return multi-head attention by its plain formula, used where its weights are requested."""
    kwargs["need_weights"] = True
    outputs, weights = functional.multi_head_attention_forward(*args, **kwargs)
    return outputs, weights if need_weights else None


_CONVOLUTIONS: dict[Any, int] = {
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
}


def _convolution(
    dimensions: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return a convolution with a cheap second derivative; None where the weights take part."""
    takes_part = weight.requires_grad or (bias is not None and bias.requires_grad)
    if takes_part or isinstance(padding, str) or input.ndim != dimensions + 2:
        return None
    sizes = [
        list(size) if isinstance(size, (tuple, list)) else [size] * dimensions
        for size in (stride, padding, dilation)
    ]
    return _Convolution.apply(input, weight, bias, (*sizes, groups))


class _Convolution(torch.autograd.Function):
    """A convolution with fixed weights, which is linear in its input up to the bias."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None, sizes: tuple[Any, ...]
    ) -> Tensor:
        ctx.weight, ctx.sizes, ctx.like = weight, sizes, input.shape
        ctx.set_materialize_grads(False)  # no gradient is not a gradient of 0
        stride, padding, dilation, groups = sizes
        zeros = [0] * len(stride)
        return torch.ops.aten.convolution(
            input, weight, bias, stride, padding, dilation, False, zeros, groups
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if gradients[0] is None:
            return None, None, None, None
        back = _ConvolutionBack.apply(gradients[0], ctx.weight, ctx.sizes, ctx.like)
        return back, None, None, None


class _ConvolutionBack(torch.autograd.Function):
    """The transpose of a convolution with fixed weights; its own gradient is the convolution."""

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, weight: Tensor, sizes: tuple[Any, ...], like: torch.Size
    ) -> Tensor:
        ctx.weight, ctx.sizes = weight, sizes
        ctx.set_materialize_grads(False)
        stride, padding, dilation, groups = sizes
        zeros = [0] * len(stride)
        return torch.ops.aten.convolution_backward(
            gradient,
            gradient.new_empty(like),
            weight,
            None,
            stride,
            padding,
            dilation,
            False,
            zeros,
            groups,
            [True, False, False],
        )[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        if gradients[0] is None:
            return None, None, None, None
        return _Convolution.apply(gradients[0], ctx.weight, None, ctx.sizes), None, None, None


def _computed(
    formula: Formula, input: Tensor, *settings: Any, inplace: bool = False, **named: Any
) -> Tensor:
    """Return the result of a formula, written into the input where the call is in place."""
    if settings and isinstance(settings[-1], bool):
        *settings, inplace = settings  # type: ignore[assignment]
    if not inplace:
        return formula(input, *settings, **named)
    return input.copy_(formula(input.clone(), *settings, **named))


def _smooth(beta: float) -> dict[str, Formula]:
    """Return the smooth formulas of a sharpness, all built on one rectifier."""

    def relu(x: Tensor) -> Tensor:
        return functional.softplus(x.clamp_min(-_FLAT / beta), beta)

    def hardtanh(x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
        return min_val + relu(x - min_val) - relu(x - max_val)

    def relu6(x: Tensor) -> Tensor:
        return hardtanh(x, 0.0, 6.0)

    def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
        return negative_slope * x + (1 - negative_slope) * relu(x)

    def prelu(x: Tensor, weight: Tensor) -> Tensor:
        slope = weight.view(-1, *(1,) * max(x.ndim - 2, 0))
        return slope * x + (1 - slope) * relu(x)

    return {
        "relu": relu,
        "relu6": relu6,
        "hardtanh": hardtanh,
        "leaky_relu": leaky_relu,
        "prelu": prelu,
        **_by_relu6(relu6),
    }


def _by_relu6(relu6: Formula) -> dict[str, Formula]:
    return {
        "hardsigmoid": lambda x: relu6(x + 3) / 6,
        "hardswish": lambda x: x * relu6(x + 3) / 6,
    }


def _calls() -> dict[Any, tuple[str, bool]]:
    """Return which activation each of torch's functions computes, and whether in place."""
    spaces = (torch, functional, Tensor, torch._C._nn)
    activations = {}
    for name in _smooth(1.0):
        for suffix, in_place in (("", False), ("_", True)):
            for space in spaces:
                if hasattr(space, name + suffix):
                    activations[getattr(space, name + suffix)] = (name, in_place)
    return activations


_ACTIVATIONS = _calls()
_BY_RELU6 = _by_relu6(functional.relu6)

"""Batch norms folded into the convolutions before them, on a private copy: less work per pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .._ops.precision import to_float64

_CONVOLUTIONS = {functional.conv1d, functional.conv2d, functional.conv3d}
_ARGUMENTS = [
    "input",
    "running_mean",
    "running_var",
    "weight",
    "bias",
    "training",
    "momentum",
    "eps",
]
_READS_SHAPE = frozenset(
    ["shape", "ndim", "dtype", "device", "size", "dim", "is_cuda", "layout", "requires_grad"]
)


def folded_weights(module: nn.Module) -> list[Tensor]:
    """Return the weights of folded batch norms, which a copy holds and does not use."""
    return [
        value
        for submodule in module.modules()
        if any(isinstance(buffer, FoldedMean) for buffer in submodule._buffers.values())
        for value in submodule._parameters.values()
        if value is not None
    ]


def fold_batch_norms(module: nn.Module, run: Callable[[], object]) -> frozenset[str]:
    """Fold batch norms of a private copy into its convolutions, and return the names of these.

    A convolution is folded where one pass shows that it runs once and that only a batch norm in
    eval mode takes its output. Its weights become those of both, computed in float64; the batch
    norm then returns its input. The caller proves that the outputs agree.

    Args:
        module: a private copy, which is changed.
        run: runs it once.
    """
    recorder = _Recorder()
    with recorder:
        run()
    owners = {
        id(submodule._parameters["weight"]): submodule
        for submodule in module.modules()
        if isinstance(submodule, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and not _has_hooks(submodule)
    }
    holders, folded = _holders(module), set[str]()
    names = {id(submodule): name for name, submodule in module.named_modules()}
    for weight, norm in recorder.pairs():
        mean_holders = holders.get(id(norm["running_mean"]))
        if id(weight) in owners and mean_holders:
            _fuse(owners[id(weight)], norm)
            for submodule, name in mean_holders:
                submodule._buffers[name] = FoldedMean(norm["running_mean"])
                folded.add(f"{names[id(owners[id(weight)])]} {names[id(submodule)]}")
    return frozenset(folded)


class FoldedMean(torch.Tensor):
    """The running mean of a folded batch norm, which makes the batch norm return its input."""

    @staticmethod
    def __new__(cls, mean: Tensor) -> FoldedMean:
        return torch.Tensor._make_subclass(cls, mean.detach(), False)

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (functional.batch_norm, torch.batch_norm):
            return args[0] if args else kwargs["input"]
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def __deepcopy__(self, cache: dict[int, Any]) -> FoldedMean:
        return self


class _Pair(NamedTuple):
    """The weight of a convolution, and the arguments of the batch norm that takes its output."""

    weight: Tensor
    norm: dict[str, Any]


class _Recorder(TorchFunctionMode):
    """Notes, while a model runs, which batch norm takes which convolution's output."""

    def __init__(self) -> None:
        super().__init__()
        self._outputs: dict[int, tuple[Tensor, Tensor]] = {}
        self._runs: Counter[int] = Counter()
        self._uses: Counter[int] = Counter()
        self._norms: dict[int, dict[str, Any]] = {}
        self._normed: Counter[int] = Counter()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if _name(func) not in _READS_SHAPE:
            for value in tree_leaves((args, kwargs)):
                self._uses[id(value)] += id(value) in self._outputs
        result = func(*args, **kwargs)
        if func in _CONVOLUTIONS:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            self._outputs[id(result)] = (result, weight)  # kept alive: ids stay unique
            self._runs[id(weight)] += 1
        elif func is functional.batch_norm:
            given = {"training": False, "eps": 1e-5, "weight": None, "bias": None}
            given |= dict(zip(_ARGUMENTS, args, strict=False)) | kwargs
            self._norms[id(given["input"])] = given
            self._normed[id(given["running_mean"])] += 1
        return result

    def pairs(self) -> list[_Pair]:
        """Return the convolutions that can be folded, each with its batch norm."""
        pairs = []
        for key, (_, weight) in self._outputs.items():
            norm = self._norms.get(key)
            if norm is None or norm["training"] or norm["running_mean"] is None:
                continue
            alone = self._runs[id(weight)] == 1 and self._uses[key] == 1
            if alone and self._normed[id(norm["running_mean"])] == 1:
                pairs.append(_Pair(weight, norm))
        return pairs


def _name(func: Any) -> str:
    name = str(getattr(func, "__name__", ""))
    return str(func.__self__.__name__) if name == "__get__" else name


def _has_hooks(submodule: nn.Module) -> bool:
    return bool(
        submodule._forward_hooks
        or submodule._forward_pre_hooks
        or submodule._backward_hooks
        or submodule._backward_pre_hooks
    )


def _holders(module: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Return the modules that hold each buffer, by its id, and their names for it."""
    holders: dict[int, list[tuple[nn.Module, str]]] = {}
    for submodule in module.modules():
        for name, value in submodule._buffers.items():
            holders.setdefault(id(value), []).append((submodule, name))
    return holders


def _fuse(convolution: nn.Module, norm: dict[str, Any]) -> None:
    """Let a convolution also apply the batch norm; its new weights are computed in float64."""
    old_weight: Tensor = convolution._parameters["weight"]  # type: ignore[assignment]
    given = [
        convolution._parameters["bias"],
        *(norm[name] for name in ("running_mean", "running_var", "eps", "weight", "bias")),
    ]
    arguments: list[Any] = [
        to_float64(value.detach()) if isinstance(value, Tensor) else value for value in given
    ]
    weight, bias = fuse_conv_bn_weights(to_float64(old_weight.detach()), *arguments)
    convolution.weight = nn.Parameter(weight.to(old_weight.dtype), requires_grad=False)
    convolution.bias = nn.Parameter(bias.to(old_weight.dtype), requires_grad=False)

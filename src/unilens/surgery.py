"""Copies of a model in which every use of an activation is a module of its own, to hook a rule on.

Rules such as those of DeepLIFT and guided backpropagation are hooks on activation modules. They go
wrong without a word where a module runs twice, where an activation is a function, where it works in
place, or where its input has other uses. Here a copy is made in which none of this is so.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.functional import pad

from ._engine.isolation import private_copy
from .errors import NotApplicableError
from .gradients import Evaluator, not_differentiable
from .survey import Call, Survey

StandIns = Mapping[type[nn.Module], Callable[[Any], nn.Module]]
"""For the exact types of activations that have a rule: what stands for one of them, built anew."""


@dataclass(frozen=True)
class Separated:
    """A copy of a model whose activations are modules of their own.

    Attributes:
        module: the copy, from `(m, *S)` to logits `(m, K)`.
        rules: the modules that a rule can be hooked on; each runs once in a pass.
        calls: what else ran in a pass at the sample.
    """

    module: nn.Module
    rules: Sequence[nn.Module]
    calls: Sequence[Call]


class Alone(nn.Module):
    """Runs one module on a tensor that nothing else uses, as hooks on tensors need it."""

    def __init__(self, rule: nn.Module) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, input: Tensor) -> Tensor:
        """Return what the module gives."""
        return self.rule(input.view_as(input))


class Clipped(nn.Module):
    """Clips to [low, high] by the difference of two ReLUs, each of which the rescale rule knows.

    >>> Clipped(0.0, 6.0)(torch.tensor([-1.0, 2.0, 7.0]))
    tensor([0., 2., 6.])
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.from_low, self.from_high = nn.ReLU(), nn.ReLU()

    def forward(self, input: Tensor) -> Tensor:
        """Return the input where it is between the two, and the nearer of them elsewhere."""
        return self.low + self.from_low(input - self.low) - self.from_high(input - self.high)


class Windows(nn.Module):
    """Max pooling in which every window has values of its own.

    A rule that puts what a window's output contributes back to the place of the maximum loses all
    but one of the windows that share it. Here autograd adds them up.

    Args:
        pooling: the `nn.MaxPool1d`, `nn.MaxPool2d` or `nn.MaxPool3d` to stand for.
    """

    def __init__(self, pooling: Any) -> None:
        super().__init__()
        dimensions = {nn.MaxPool1d: 1, nn.MaxPool2d: 2, nn.MaxPool3d: 3}[type(pooling)]

        def each(value: Any) -> tuple[int, ...]:
            return tuple(value) if isinstance(value, (tuple, list)) else (value,) * dimensions

        sizes, dilations = each(pooling.kernel_size), each(pooling.dilation)
        self.axes = tuple(zip(sizes, each(pooling.stride), each(pooling.padding), dilations))  # noqa: B905
        self.ceil_mode = pooling.ceil_mode
        self.rule = nn.MaxPool1d(math.prod(sizes))

    def forward(self, input: Tensor) -> Tensor:
        """Return the largest value of each window."""
        lengths, borders = input.shape[2:], []
        for length, (size, stride, padding, dilation) in zip(lengths, self.axes, strict=True):
            span = dilation * (size - 1) + 1
            room = length + 2 * padding - span
            count = (-(-room // stride) if self.ceil_mode else room // stride) + 1
            count -= self.ceil_mode and (count - 1) * stride >= length + padding
            borders.append((padding, (count - 1) * stride + span - length - padding))
        windows = pad(input, list(chain(*reversed(borders))), value=torch.finfo(input.dtype).min)
        for axis, (size, stride, _, dilation) in enumerate(self.axes, 2):
            windows = windows.unfold(axis, dilation * (size - 1) + 1, stride)[..., ::dilation]
        side_by_side = windows.flatten(input.ndim).flatten(1, -2)
        return self.rule(side_by_side).view(windows.shape[: input.ndim])


def separate_activations(
    model: nn.Module | Evaluator, sample: Tensor, stand_ins: StandIns
) -> Separated:
    """Return a copy of the model in which every use of an activation is a module of its own.

    Modules whose forward uses an activation twice, or as a function, are traced and run as the
    graph of what they did; the others stay what they are. Hooks stay where they were.

    Args:
        model: in eval mode; it is not changed.
        sample: one input `(1, *S)`, at which the copy is run once.
        stand_ins: the activations that matter, and what stands for each.

    Raises:
        NotApplicableError: an activation runs twice, or is a function, in a module that cannot be
            traced.
        UnilensError: the model cannot be copied, or cannot take the sample.
    """
    evaluator = Evaluator.of(model)
    with torch.inference_mode(False), torch.enable_grad():
        surgeon = _Surgeon(stand_ins)
        copy = private_copy(evaluator.model)
        surgeon.unshare(copy, {copy})
        surgeon.operate(copy, "")
        survey = Survey(surgeon.places, surgeon.stood_in)
        with survey:
            outputs = evaluator.run(copy, sample.detach().clone().requires_grad_())
    if not outputs.requires_grad:
        raise not_differentiable()
    for stand_in, count in survey.runs.items():
        if count > 1:
            raise NotApplicableError(
                f"expected every activation to run once, but {surgeon.places[stand_in]} runs "
                f"{count} times, out of reach of torch.fx; use a module for each time"
            )
    for call in survey.calls:
        if _ACTIVATIONS.get(call.function) in stand_ins:
            raise NotApplicableError(
                f"expected activations to be modules, but {call.place} calls the function "
                f"{call.function}, out of reach of torch.fx; use an nn.Module for it"
            )
    rules = [rule for stand_in in survey.runs for rule in _innermost(stand_in)]
    return Separated(copy, rules, survey.calls)


def _innermost(stand_in: nn.Module) -> list[nn.Module]:
    return [part for part in stand_in.modules() if not any(part.children())]


_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu_": nn.ReLU,
    "relu6": nn.ReLU6,
    "hardtanh": nn.Hardtanh,
    "hardtanh_": nn.Hardtanh,
    "leaky_relu": nn.LeakyReLU,
    "leaky_relu_": nn.LeakyReLU,
    "elu": nn.ELU,
    "elu_": nn.ELU,
    "sigmoid": nn.Sigmoid,
    "sigmoid_": nn.Sigmoid,
    "tanh": nn.Tanh,
    "tanh_": nn.Tanh,
    "softplus": nn.Softplus,
    "max_pool1d": nn.MaxPool1d,
    "max_pool2d": nn.MaxPool2d,
    "max_pool3d": nn.MaxPool3d,
}
_POOLING = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")


class _Surgeon:
    """Changes a copy, and notes what stands for what."""

    def __init__(self, stand_ins: StandIns) -> None:
        self.stand_ins = stand_ins
        self.places: dict[nn.Module, str] = {}
        self.stood_in: set[nn.Module] = set()

    def unshare(self, part: nn.Module, seen: set[nn.Module]) -> None:
        """Give every place in the tree a module of its own, where that can matter."""
        for name, child in part._modules.items():
            if child is None:
                continue
            if child in seen and not self._is_plain(child):
                part._modules[name] = child = private_copy(child)
            seen.add(child)
            self.unshare(child, seen)

    def operate(self, part: nn.Module, name: str) -> None:
        """Change what a module and the modules in it do with activations."""
        if isinstance(part, torch.jit.ScriptModule):
            raise NotApplicableError(
                f"expected a model in Python, but {_place(part, name)} is TorchScript, in which no "
                "rule can be hooked; use the model that it was made from"
            )
        self.places[part] = _place(part, name)
        if type(part) in self.stand_ins and not getattr(part, "return_indices", False):
            stand_in = self.stand_ins[type(part)](part)
            self.places[stand_in] = self.places[part]
            self.stood_in.add(stand_in)
            vars(part)["forward"] = stand_in.__call__
            return
        children = dict(part.named_children())
        if not self._is_plain(part):
            children |= self._rewrite(part)
        for child_name, child in children.items():
            self.operate(child, f"{name}.{child_name}".lstrip("."))

    def _rewrite(self, part: nn.Module) -> dict[str, nn.Module]:
        """Let the module run its graph, with new modules in it, where it needs some."""
        if "forward" in vars(part) or not _is_simple(type(part).forward):
            return {}
        try:
            traced = private_copy(part)
            graph = _Tracer().trace(traced)
            added = self._added(part, graph)
            if added:
                root = {**_attributes(graph, part, traced), **added}
                vars(part)["forward"] = fx.GraphModule(root, graph).forward
        except Exception:  # tracing runs the user's forward: it can raise anything
            return {}
        return added

    def _added(self, part: nn.Module, graph: fx.Graph) -> dict[str, nn.Module]:
        """Point nodes of the graph to new modules, and return these."""
        added: dict[str, nn.Module] = {}
        called: set[str] = set()
        for node in graph.nodes:
            new: nn.Module | None = None
            if node.op == "call_module":
                again, child = str(node.target) in called, part.get_submodule(str(node.target))
                called.add(str(node.target))
                new = private_copy(child) if again and not self._is_plain(child) else None
            elif node.op in ("call_function", "call_method"):
                new = self._module_of(node)
                if new is not None:
                    node.op, node.args, node.kwargs = "call_module", (_input(node),), {}
            if new is not None:
                node.target = f"{node.name}_own"
                added[node.target] = new.eval()
        return added

    def _module_of(self, node: fx.Node) -> nn.Module | None:
        """Return the module that does what a node's function does, where it has a rule."""
        name = node.target if isinstance(node.target, str) else node.target.__name__
        of_torch = (getattr(node.target, "__module__", None) or "torch").startswith("torch")
        kind = _ACTIVATIONS.get(name)
        if (
            kind is None
            or kind not in self.stand_ins
            or not of_torch
            or node.all_input_nodes != [_input(node)]
        ):
            return None
        settings = {k: v for k, v in node.kwargs.items() if k not in ("input", "inplace")}
        if name.startswith("max_pool"):
            settings |= dict(zip(_POOLING, node.args[1:], strict=False))
            return kind(**settings)
        return kind(*node.args[1:], **settings)

    def _is_plain(self, part: nn.Module) -> bool:
        """Return whether a module is torch's own and can be called twice: a convolution, say."""
        own = type(part).__module__.startswith("torch.nn.modules")
        return own and type(part) not in self.stand_ins and not any(part.children())


def _input(node: fx.Node) -> Any:
    return node.args[0] if node.args else node.kwargs["input"]


def _is_simple(forward: Any) -> bool:
    """Return whether a forward has no defaults: a trace would take them for tensors."""
    parameters = inspect.signature(forward).parameters.values()
    return all(one.default is one.empty for one in parameters)


def _attributes(graph: fx.Graph, *sources: nn.Module) -> dict[str, Any]:
    """Return what the graph refers to, by name, from the first source that has it."""
    found: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            for source in reversed(sources):
                with contextlib.suppress(AttributeError):
                    found[node.target] = operator.attrgetter(node.target)(source)
    return found


class _Tracer(fx.Tracer):
    """Traces one module's forward; the modules that it calls stay what they are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        if not torch.is_grad_enabled():
            raise RuntimeError("a trace would lose a gradient of the module's own, or no_grad")
        return super().create_node(*args, **kwargs)


def _place(part: nn.Module, name: str) -> str:
    return f"{name} ({type(part).__name__})" if name else f"the model ({type(part).__name__})"

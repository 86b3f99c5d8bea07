"""Copies of a model some of whose layers have weights drawn afresh."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from ..._engine.axes import users_module
from ..._engine.copying import private_copy
from ..._engine.evaluator import Evaluator
from ..._engine.unlearning import is_scripted
from ..._ops.random import seed_for
from ...errors import NotApplicableError, UnknownNameError
from ..context import EvalContext


def hookable_copy(evaluator: Evaluator, inputs: Tensor) -> nn.Module:
    """Return a private copy of the model whose layers take hooks; see `Evaluator.private_module`.

    Raises:
        NotApplicableError: it is TorchScript, or no copy gives the model's outputs.
    """
    if is_scripted(evaluator.model):
        raise NotApplicableError(
            "expected a model of Python modules, whose layers can be watched, got TorchScript; "
            "pass the module that it was made from"
        )
    return evaluator.private_module(inputs)


def layers_of(evaluator: Evaluator, sample: Tensor) -> list[str]:
    """Return the names of the layers with weights to draw, from the output down to the input.

    A layer is a module that holds weights of its own. Layers come in the order in which they run;
    one whose weights are used without a call of it counts where the module around it begins. Layers
    that do not take part (an auxiliary head, say) and those without two different weights are left
    out.

    Args:
        evaluator: of the model.
        sample: one input `(1, *S)`, at which a copy is run once, forward and backward.

    Raises:
        NotApplicableError: the model has no such layer.
    """
    copy = hookable_copy(evaluator, sample)
    names = {module: name for name, module in users_module(copy).named_modules()}
    begins: dict[str, int] = {}

    def note(module: nn.Module, given: object) -> None:
        begins.setdefault(names[module], len(begins))

    for module in names:
        module.register_forward_pre_hook(note)
    weights = [value.requires_grad_() for value in copy.parameters() if value.is_floating_point()]
    with torch.enable_grad():
        used = _used(evaluator.run(copy, sample), weights)
    found = [
        (_begins(name, begins), order, name)
        for order, (module, name) in enumerate(names.items())
        if any(
            _varied(value) and (name in begins or id(value) in used)
            for value in module.parameters(recurse=False)
        )
    ]
    if not found:
        raise NotApplicableError(
            "expected a model with weights to randomise, got one without a layer that has two "
            "different weights; judge the map by another metric"
        )
    return [name for *_, name in sorted(found, reverse=True)]


def layer_order(context: EvalContext) -> list[str]:
    """Return the names of the layers with weights, from the output down; see `layers_of`."""
    return context.once("layers", lambda: layers_of(context.evaluator, context.inputs[:1]))


def _used(outputs: Tensor, weights: Sequence[Tensor]) -> set[int]:
    """Return the weights that the outputs depend on, by id."""
    if not (outputs.requires_grad and weights):
        return set()
    slopes = torch.autograd.grad(outputs.sum(), weights, allow_unused=True)
    return {id(one) for one, slope in zip(weights, slopes, strict=True) if slope is not None}


def _begins(name: str, begins: dict[str, int]) -> int:
    """Return when a layer first runs, or the nearest module around it that does."""
    while name and name not in begins:
        name = name.rpartition(".")[0]
    return begins[name]


def _varied(value: Tensor) -> bool:
    return value.is_floating_point() and bool((value != value.flatten()[:1]).any())


def randomised(model: nn.Module, layers: Iterable[str], seed: int) -> nn.Module:
    """Return a copy of the model with the weights of some layers drawn afresh.

    Each tensor of weights is drawn from a normal distribution of the mean and standard deviation of
    its own values. What is drawn for a tensor depends on the seed and its name alone. The other
    layers share their storage with the model, which stays as it is.
    """
    copy = private_copy(model)
    modules, drawn = dict(users_module(copy).named_modules()), dict[int, nn.Parameter]()
    for name in layers:
        for key, value in list(modules[name].named_parameters(recurse=False)):
            if not _varied(value):
                continue
            if id(value) not in drawn:  # weights that two layers share stay shared
                fresh = _fresh(value, seed_for(f"{name}.{key}", seed))
                drawn[id(value)] = nn.Parameter(fresh, requires_grad=False)
            setattr(modules[name], key, drawn[id(value)])
    return copy


def _fresh(value: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    known = value.detach().cpu().double()
    normal = torch.randn(known.shape, generator=generator, dtype=torch.float64)
    return (known.mean() + known.std(correction=0) * normal).to(value)


def evenly(order: Sequence[str], count: int) -> list[str]:
    """Return at most `count` layers, evenly over the depth, the last one among them."""
    last, count = len(order) - 1, min(count, len(order))
    indices = torch.linspace(last, 0, count, dtype=torch.float64).round().long().flip(0)
    return [order[index] for index in indices.tolist()]


def within(order: Sequence[str], name: str) -> list[str]:
    """Return the layers that a name means: the layer itself, or all layers of a block."""
    found = [one for one in order if one == name or one.startswith(f"{name}.")]
    if not found:
        raise UnknownNameError("layer with weights", name, order)
    return found

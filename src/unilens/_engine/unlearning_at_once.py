"""Unlearning without a pass backward for each input: many at once, or the last layer in a formula.

Both give the values of one input after another to rounding, which is checked on the user's own
inputs before they are used.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from .._ops.precision import expand_like, l2_norm
from .calls import ModelCalls
from .gradients import weight_gradients
from .passes import PassRunner
from .plans import MODEL_ERRORS, Plan, differ
from .unlearning import logits_after_ascent, weights_of
from .workers import Results, Workers

_BYTES = 16 * 2**20
"""Of the weights of the inputs that unlearn at once, with their gradients: what caches hold."""
_TENSORS_PER_WEIGHT = 4
"""Held at once: weights, gradients, their squares, and new weights."""
_FEWEST = 4
"""Inputs from which on to unlearn together."""


class Ascent(NamedTuple):
    """Steps of a length in some of the weights, one of `UNLEARNED_WEIGHTS`."""

    rate: float
    steps: int
    weights: str


Objective = Callable[[Tensor, Tensor], Tensor]
BlockWork = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a copy, points `(m, *S)` and the numbers `(m,)` of their inputs to logits `(m, K)`."""
Slopes = Callable[[Tensor], Tensor]
"""From logits `(m, K)` to the gradients `(m, K)` of the objective in them."""


def inputs_at_once(module: nn.Module, which: str, count: int) -> int:
    """Return how many of `count` inputs fit, with a row of weights each; 0 for too few."""
    named = dict(module.named_parameters())
    size = sum(named[name].nbytes for name in weights_of(module, which))
    fitting = min(count, _BYTES // (_TENSORS_PER_WEIGHT * max(size, 1)))
    return fitting if fitting >= _FEWEST else 0


def logits_after_ascents(
    module: nn.Module, inputs: Tensor, slopes: Slopes, ascent: Ascent
) -> Tensor:
    """Return the logits `(m, K)` at inputs `(m, *S)` after steps taken for each of them alone.

    Every input has weights of its own, and `vmap` runs the module over both.

    Args:
        module: a copy of the model, which no other thread uses; its own weights stay.
        inputs: in the dtype that the module takes.
        slopes: of the objective.
        ascent: the steps; none is taken where the gradient is zero.

    Raises:
        Exception: what torch raises where it cannot run the module so.
    """

    def logits_of(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        outputs = functional_call(module, weights, (row.unsqueeze(0),)).view(-1)
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

    named = dict(module.named_parameters())
    weights = {
        name: named[name].detach().expand(len(inputs), *named[name].shape)
        for name in weights_of(module, ascent.weights)
    }
    for _ in range(ascent.steps):
        leaves = {name: value.detach().requires_grad_() for name, value in weights.items()}
        with torch.enable_grad():
            outputs = vmap(logits_of)(leaves, inputs)
        gradients = torch.autograd.grad(
            outputs, list(leaves.values()), slopes(outputs), materialize_grads=True
        )
        norms = torch.stack([l2_norm(each) for each in gradients]).norm(dim=0)
        factors = torch.where(norms > 0, ascent.rate / norms, 0)
        weights = {
            name: value + slope * expand_like(factors, slope)
            for (name, value), slope in zip(weights.items(), gradients, strict=True)
        }
    with torch.no_grad():
        return vmap(logits_of)(weights, inputs)


class LastLinear(NamedTuple):
    """The inputs `(m, F)` of a linear layer whose outputs are the model's."""

    features: Tensor
    has_bias: bool

    def logits_after_ascent(
        self, outputs: Tensor, slopes: Slopes, rate: float, steps: int
    ) -> Tensor:
        """Return the logits `(m, K)` after steps in the weights and bias of this layer.

        With the slope s in the logits, the gradient of the weights is s z^T and that of the bias
        s, so that a step of length r changes the logits by r s / |s| sqrt(|z|^2 + 1).
        """
        squares = l2_norm(self.features).square() + float(self.has_bias)
        for _ in range(steps):
            slope = slopes(outputs)
            norms = l2_norm(slope)
            lengths = torch.where(norms * squares > 0, rate * squares.sqrt() / norms, 0)
            outputs = outputs + slope * expand_like(lengths, slope)
        return outputs


def last_linear_of(
    module: nn.Module, run: Callable[[], Tensor]
) -> tuple[Tensor, LastLinear] | None:
    """Return the logits of a pass, and the linear layer that ends the model; None without one.

    What the layer returns has to be the very tensor that the model returns, and its input must not
    depend on its weights, which other layers may share.

    Args:
        module: a private copy, which no other thread uses.
        run: runs it once.
    """
    (name,) = {name.rpartition(".")[0] for name in weights_of(module, "last")}
    layer = module.get_submodule(name)
    if type(layer) is not nn.Linear:
        return None
    seen: list[tuple[Tensor, Tensor, int]] = []
    returned: list[object] = []
    hooks = [
        layer.register_forward_hook(
            lambda _, given, output: seen.append((given[0], output, output._version))
        ),
        module.register_forward_hook(lambda _, given, output: returned.append(output)),
    ]
    weights = [value for value in layer.parameters() if value is not None]
    try:
        for value in weights:
            value.requires_grad_()
        with torch.enable_grad():
            outputs = run().detach()
    finally:
        for value in weights:
            value.requires_grad_(False)
        for hook in hooks:
            hook.remove()
    if len(seen) != 1 or len(returned) != 1 or returned[0] is not seen[0][1]:
        return None
    features, last, version = seen[0]
    if features.requires_grad or features.ndim != 2 or last._version != version:
        return None
    return outputs, LastLinear(features.detach(), layer.bias is not None)


class Unlearning:
    """Takes the ascent steps of each input alone, in the fastest way that gives their values.

    Args:
        model: the user's, which messages are about.
        passes: run inputs one after the other; their pool lends copies.
        calls: run a copy.
        workers: run blocks of inputs.
    """

    def __init__(
        self, model: nn.Module, passes: PassRunner, calls: ModelCalls, workers: Workers
    ) -> None:
        self._model, self._passes, self._calls, self._workers = model, passes, calls, workers
        self._one_by_one_only: set[tuple[torch.Size, str]] = set()

    def logits(
        self, plan: Plan, inputs: Tensor, objective: Objective, ascent: Ascent, *, together: bool
    ) -> Tensor:
        """Return the logits `(B, K)` at inputs `(B, *S)` after the ascents.

        Args:
            plan: of the model at the inputs, with no batch norm folded.
            inputs: `(B, *S)`.
            objective: from logits `(m, K)` and the numbers of inputs `(m,)` to values `(m,)`.
            ascent: the steps.
            together: whether inputs may share a pass.
        """
        key = (inputs.shape[1:], ascent.weights)
        plain = not (plan.stateful or plan.own_weights or plan.reentrant or plan.autocast)
        if plain and key not in self._one_by_one_only:
            try:
                if ascent.weights == "last":
                    size = self._passes.points_per_pass(inputs) if together else 1
                    return self._in_last_layer(plan, inputs, objective, ascent, size)
                if together and plan.together:
                    return self._together(plan, inputs, objective, ascent)
            except _NoShortCutError:
                self._one_by_one_only.add(key)
        return self._one_by_one(plan, inputs, objective, ascent)

    def _one_by_one(
        self, plan: Plan, inputs: Tensor, objective: Objective, ascent: Ascent
    ) -> Tensor:
        pool = self._passes.pool
        learners = pool.learners(plan, inputs[:1], ascent.weights)
        guarded = dataclasses.replace(plan, restored=plan.restored or plan.reads_values)

        def work(_: object, point: Tensor, rows: Tensor) -> tuple[Tensor]:
            def gradients(outputs: Tensor) -> list[Tensor]:
                values = objective(outputs, rows)
                return weight_gradients(self._model, values, weights, plan.reentrant)

            with learners.borrowed() as (module, weights), pool.restored(module, guarded):
                run = functools.partial(self._calls.forward, module, plan)
                rate, steps = ascent.rate, ascent.steps
                return (logits_after_ascent(run, point, weights, gradients, rate, steps),)

        return self._passes.run(inputs.unsqueeze(0), work, alone=True)[0][0]

    def _in_last_layer(
        self, plan: Plan, inputs: Tensor, objective: Objective, ascent: Ascent, size: int
    ) -> Tensor:
        def work(module: nn.Module, points: Tensor, rows: Tensor) -> Tensor:
            run = functools.partial(self._calls.forward, module, plan, points)
            ended = last_linear_of(module, run)
            if ended is None:
                raise _NoShortCutError
            outputs, layer = ended
            slopes = _slopes_of(objective, rows)
            return layer.logits_after_ascent(outputs, slopes, ascent.rate, ascent.steps)

        return self._in_blocks(plan, inputs, size, work)

    def _together(self, plan: Plan, inputs: Tensor, objective: Objective, ascent: Ascent) -> Tensor:
        with self._passes.pool.borrowed(plan, inputs[:1]) as module:
            size = inputs_at_once(module, ascent.weights, len(inputs))
        if not size:
            return self._one_by_one(plan, inputs, objective, ascent)

        def work(module: nn.Module, points: Tensor, rows: Tensor) -> Tensor:
            self._calls.report(len(points))
            slopes = _slopes_of(objective, rows)
            try:
                given = points.to(plan.dtype)
                return logits_after_ascents(module, given, slopes, ascent)
            except MODEL_ERRORS as error:
                raise _NoShortCutError from error

        outputs = self._in_blocks(plan, inputs, size, work)
        ends = torch.tensor([0, len(inputs) - 1], device=inputs.device)
        expected = self._one_by_one(
            plan, inputs[ends], lambda values, rows: objective(values, ends[rows]), ascent
        )
        if differ(outputs[ends], expected, plan):
            raise _NoShortCutError
        return outputs

    def _in_blocks(self, plan: Plan, inputs: Tensor, size: int, work: BlockWork) -> Tensor:
        results = Results(len(inputs))

        def task(index: Tensor) -> None:
            with self._passes.pool.borrowed(plan, inputs[:1]) as module:
                results.put(index, [work(module, inputs[index], index)])

        numbers = torch.arange(len(inputs), device=inputs.device)
        self._workers.run(task, list(numbers.split(size)))
        return results.columns[0]


def _slopes_of(objective: Objective, rows: Tensor) -> Slopes:
    """Return the gradients of an objective in the logits of the inputs with these numbers."""

    def slopes(outputs: Tensor) -> Tensor:
        leaf = outputs.detach().requires_grad_()
        with torch.enable_grad():
            total = objective(leaf, rows).sum()
        (slope,) = torch.autograd.grad(total, leaf, materialize_grads=True)
        return slope

    return slopes


class _NoShortCutError(Exception):
    """A model whose inputs unlearn one after the other."""

"""How a model is run, and the proof on the user's own input that this gives the user's values.

The reference is the user's own module, called with one point. Each speed-up is compared with it,
outputs and input gradients, at the user's input and at one other point; what does not agree is
dropped, down to the plain call of the user's module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..errors import UnilensError, first_line
from .copying import private_copy, unwrapped
from .folding import fold_batch_norms
from .guard import USER_MODULE, Guard
from .memory import out_of_memory, pointer_of
from .reads import ValueReads

OUTPUT_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of the largest output, by the precision of the pass; 0.02 in half precision."""
GRADIENT_TOLERANCE = {torch.float64: 1e-7, torch.float32: 1e-2}
"""Of the gradient's l2 norm: where a unit is near its kink, rounding alone switches it."""
_HALF_TOLERANCE = 2e-2
SPEED_UPS = ("folded", "channels_last", "together")
MODEL_ERRORS = (Exception,)
"""What a user's forward or backward can raise: exceptions of their own, files, warnings too."""


@dataclass(frozen=True)
class Plan:
    """How a model is run.

    Attributes:
        copied: on private copies; otherwise it is the user's own module, one pass at a time.
        own_weights: whether a copy has weights of its own, since a pass writes into them.
        restored: whether what a pass changes in a copy is put back after it.
        folded: whether batch norms are folded into convolutions.
        channels_last: whether weights and points are in that memory format.
        together: whether a pass takes several points.
        dtype: of the points that the model is given.
        reentrant: whether gradients come by `backward`, as reentrant checkpointing needs it;
            otherwise by `torch.autograd.grad`.
        backward_error: what the pass backward raises, or nothing.
        saved_bytes: that autograd keeps for one point, weights not counted.
        autocast: the dtype of automatic mixed precision, or None.
        dropped: the speed-ups that did not agree, each with the reason.
    """

    copied: bool = True
    own_weights: bool = False
    restored: bool = False
    folded: bool = False
    channels_last: bool = False
    together: bool = True
    dtype: torch.dtype = torch.float32
    reentrant: bool = False
    backward_error: str = ""
    saved_bytes: int = 0
    autocast: torch.dtype | None = None
    dropped: dict[str, str] = field(default_factory=dict, compare=False)

    def without(self, reason: str, *names: str) -> Plan:
        """Return the plan without some of what it uses, and the reason if there is one."""
        used = [name for name in names if getattr(self, name)]
        dropped = {**self.dropped, **dict.fromkeys(used, reason)} if reason else self.dropped
        off: dict[str, Any] = dict.fromkeys(used, False)
        return dataclasses.replace(self, **off, dropped=dropped)

    def describe(self) -> dict[str, object]:
        """Return what a record says of how the model was run."""
        used = [name for name in ("copied", *SPEED_UPS) if getattr(self, name)]
        return {"used": used, "dropped": dict(self.dropped)}


class Observation(NamedTuple):
    """What a model gives at points: outputs `(m, K)`, input gradients `(m, *S)` where it has any.

    Attributes:
        outputs: detached.
        gradient: of a fixed sum of the outputs; None where there is none.
        error: what the pass backward raises, or nothing.
        saved_bytes: that autograd keeps for all points.
        reads_values: whether values that depend on the points were read as Python numbers.
    """

    outputs: Tensor
    gradient: Tensor | None
    error: str
    saved_bytes: int
    reads_values: bool = False


Call = Callable[[nn.Module, Tensor, Plan], Tensor]
"""Runs a module at points `(m, *S)` as a plan says, and raises what the module raises."""


def prove(
    model: nn.Module, points: Tensor, first: Plan, dtypes: list[torch.dtype], call: Call
) -> Plan:
    """Return the fastest plan whose outputs and gradients are those of the user's module.

    It costs two passes of the user's module, and for each plan that is tried one of its copy with
    both points.

    Args:
        model: the user's module; what a pass changes in it is put back.
        points: `(2, *S)`: the user's input, and another point.
        first: the plan with every speed-up that may be used.
        dtypes: the points are given to the model in the first of these that it takes.
        call: runs a module.

    Raises:
        Exception: what the user's module raises at the user's input.
        UnilensError: two calls of the user's module with one input differ.
    """
    reference = _observe_user(model, points, first, dtypes, call)
    plan, reason = reference.plan, ""
    try:
        copied = private_copy(model, own_weights=plan.own_weights)
    except UnilensError as error:
        return _uncopied(reference, str(error))
    wanted: Plan | None = None
    for candidate in _candidates(plan):
        try:
            with USER_MODULE, Guard(model):
                module, able = prepared(copied, candidate, reference.points[:1], call)
            wanted = wanted or able
            found, why = reference.try_copy(module, able)
        except MODEL_ERRORS as error:
            wanted, found, why = wanted or candidate, None, first_line(error)
        if found is not None:
            lost = [
                name for name in SPEED_UPS if getattr(wanted, name) and not getattr(found, name)
            ]
            return dataclasses.replace(found, dropped=plan.dropped | dict.fromkeys(lost, reason))
        reason = reason or why
        if why == _WRITES_OUTSIDE:
            break
    return _uncopied(reference, reason)


_WRITES_OUTSIDE = "it writes into what its copies share with it"


def prepared(copied: nn.Module, plan: Plan, sample: Tensor, call: Call) -> tuple[nn.Module, Plan]:
    """Return a copy as a plan wants it, and the plan; nothing may be there to fold."""
    if not (plan.channels_last or plan.folded):
        return copied, plan
    module = private_copy(copied, own_weights=plan.own_weights)
    if plan.channels_last:
        module.to(memory_format=torch.channels_last)
    if plan.folded:

        def run() -> None:
            with torch.no_grad():
                call(module, sample, plan)

        batch_norms = any(
            isinstance(part, nn.modules.batchnorm._NormBase) for part in module.modules()
        )
        if not (batch_norms and fold_batch_norms(module, run)):
            plan = plan.without("", "folded")
    return module, plan


def _candidates(plan: Plan) -> Iterator[Plan]:
    """Yield plans with fewer and fewer speed-ups."""
    tried: list[Plan] = []
    for names in (
        (),
        ("together",),
        ("channels_last",),
        ("folded",),
        ("folded", "channels_last"),
        SPEED_UPS,
    ):
        candidate = plan.without("", *names)
        if candidate not in tried:
            tried.append(candidate)
            yield candidate


@dataclass
class _Reference:
    """What the user's module gives at both points."""

    model: nn.Module
    points: Tensor
    plan: Plan
    call: Call
    seen: list[Observation]

    def try_copy(self, module: nn.Module, plan: Plan) -> tuple[Plan | None, str]:
        """Return the plan where a copy gives the user's values, and what is wrong elsewhere."""
        with USER_MODULE:
            own, users = Guard(module), Guard(self.model)
            with own, users:  # what both keep, as a list of their class, counts as the user's
                saved, reason = self._compare(module, plan)
        if users.changed or users.changed_outside or own.changed_outside:
            return None, _WRITES_OUTSIDE
        if reason:
            return None, reason
        plan = dataclasses.replace(plan, saved_bytes=saved)
        if not own.changed:
            return plan, ""
        with USER_MODULE, Guard(self.model), Guard(module):  # does it lean on what it kept?
            reason = self._compare(module, plan)[1] or self._compare(module, plan)[1]
        return dataclasses.replace(plan, restored=bool(reason)), ""

    def _compare(self, module: nn.Module, plan: Plan) -> tuple[int, str]:
        """Return the saved bytes of a point, and by what a copy's values differ."""
        parts = [self.points] if plan.together else self.points.split(1)
        seen = _joined([observe(module, part, plan, self.call) for part in parts])
        return seen.saved_bytes // 2, self.difference(seen, plan)

    def difference(self, seen: Observation, plan: Plan) -> str:
        """Return by what an observation differs beyond the tolerance, or nothing."""
        expected = _joined(self.seen[: len(seen.outputs)])
        if seen.error and not expected.error and expected.gradient is not None:
            return seen.error
        if reason := differ(seen.outputs, expected.outputs, plan):
            return reason
        if expected.gradient is None or seen.gradient is None:
            return ""
        off = _relative_norm(seen.gradient, expected.gradient)
        if not off <= _tolerance(GRADIENT_TOLERANCE, plan, expected.outputs.dtype):
            return f"its input gradients differ by {off:.1g} of their norm"
        return ""


def _observe_user(
    model: nn.Module, points: Tensor, plan: Plan, dtypes: list[torch.dtype], call: Call
) -> _Reference:
    """Return what the user's module gives at each point alone, and what it needs."""
    first, error = None, None
    for dtype in dtypes:
        plan = dataclasses.replace(plan, dtype=dtype)
        try:
            first, wrote = _guarded(model, points[:1], plan, call)
            break
        except UnilensError:
            raise
        except MODEL_ERRORS as raised:
            if out_of_memory(raised):
                raise
            error = error or raised
    if first is None:
        assert error is not None
        raise error
    plan = dataclasses.replace(plan, own_weights=wrote, backward_error=first.error)
    if first.reads_values:
        plan = plan.without("its forward decides by values of its input", "together")
    if _is_reentrant(first.error):
        plan = dataclasses.replace(plan, reentrant=True, backward_error="")
        plan = plan.without("reentrant checkpointing", *SPEED_UPS)
    try:
        second, wrote = _guarded(model, points[1:], plan, call)
        plan = dataclasses.replace(plan, own_weights=plan.own_weights or wrote)
    except MODEL_ERRORS:  # the other point may lie outside of what the model takes
        points, second = points[:1].expand_as(points), first
    return _Reference(model, points, plan, call, [first, second])


def _is_reentrant(error: str) -> bool:
    return "checkpoint" in error.lower() and ".grad()" in error


def _guarded(model: nn.Module, point: Tensor, plan: Plan, call: Call) -> tuple[Observation, bool]:
    """Observe the user's module, and return whether a pass writes into its tensors."""
    plain = dataclasses.replace(plan.without("", *SPEED_UPS), reentrant=False)
    with USER_MODULE:
        reads, guard = ValueReads(point), Guard(model)
        with guard, contextlib.nullcontext() if guard.scripted else reads:
            seen = observe(model, point, plain, call)
    return seen._replace(reads_values=reads.found), guard.wrote_tensors


def _uncopied(reference: _Reference, reason: str) -> Plan:
    """Return the plan of the user's own module; raise where its calls do not agree."""
    again, _ = _guarded(reference.model, reference.points[:1], reference.plan, reference.call)
    differs = reference.difference(again, reference.plan)
    if differs:
        raise UnilensError(
            "expected a model that gives one input the same outputs every time, but for a second "
            f"call {differs}; take what is random, such as dropout that is on in eval mode, out of "
            "its forward"
        )
    return reference.plan.without(reason, "copied", *SPEED_UPS)


def observe(module: nn.Module, points: Tensor, plan: Plan, call: Call) -> Observation:
    """Return what a module gives at points `(m, *S)`, with gradients of a fixed sum of outputs."""
    leaf = points.detach().clone().requires_grad_()
    saved = _SavedBytes(module)
    with torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(saved.note, lambda tensor: tensor):
            outputs = call(module, leaf, plan)
        if not outputs.requires_grad:
            return Observation(outputs, None, "its outputs have no gradient", saved.total)
        generator = torch.Generator().manual_seed(0)
        factors = torch.randn(outputs.shape[1:], generator=generator, dtype=torch.float64)
        try:
            total = (outputs * factors.to(outputs)).sum()
            gradient = input_gradient(total, leaf, reentrant=plan.reentrant)
        except MODEL_ERRORS as error:
            if out_of_memory(error):
                raise
            return Observation(outputs.detach(), None, first_line(error), saved.total)
    return Observation(outputs.detach(), gradient, "", saved.total)


def input_gradient(
    total: Tensor, leaf: Tensor, *, reentrant: bool = False, create_graph: bool = False
) -> Tensor | None:
    """Return the gradient of a number in a leaf, or None where it does not depend on it."""
    if not reentrant:
        (gradient,) = torch.autograd.grad(total, leaf, create_graph=create_graph, allow_unused=True)
        return gradient
    total.backward()
    return leaf.grad


class _SavedBytes:
    """Counts the bytes that autograd saves, the module's own tensors left out."""

    def __init__(self, module: nn.Module) -> None:
        own = (*module.parameters(), *module.buffers())
        self._own = {pointer_of(value) for value in own}
        self._sizes: dict[int, int] = {}

    def note(self, tensor: Tensor) -> Tensor:
        address = pointer_of(tensor)
        if address and address not in self._own:
            self._sizes[address] = tensor.untyped_storage().nbytes()
        return tensor

    @property
    def total(self) -> int:
        return sum(self._sizes.values())


def _joined(seen: list[Observation]) -> Observation:
    gradients = [one.gradient for one in seen if one.gradient is not None]
    return Observation(
        torch.cat([one.outputs for one in seen]),
        torch.cat(gradients) if len(gradients) == len(seen) else None,
        next((one.error for one in seen if one.error), ""),
        sum(one.saved_bytes for one in seen),
    )


def differ(outputs: Tensor, expected: Tensor, plan: Plan) -> str:
    """Return by what outputs differ beyond the tolerance, or nothing."""
    off = _largest_difference(outputs, expected)
    if off <= _tolerance(OUTPUT_TOLERANCE, plan, expected.dtype):
        return ""
    return f"its outputs differ by {off:.1g} of the largest"


def _tolerance(known: Mapping[torch.dtype, float], plan: Plan, dtype: torch.dtype) -> float:
    dtypes = (plan.dtype, dtype, plan.autocast or plan.dtype)
    return known.get(max(dtypes, key=lambda one: torch.finfo(one).eps), _HALF_TOLERANCE)


def _largest_difference(values: Tensor, expected: Tensor) -> float:
    """Return the largest difference of a row, relative to the row's largest value."""
    if values.shape != expected.shape:
        return torch.inf
    off = _difference(values, expected).abs().amax(-1)
    scale = expected.abs().amax(-1).clamp_min(torch.finfo(expected.dtype).tiny)
    return float(torch.where(off == 0, 0, off / scale).max())


def _relative_norm(values: Tensor, expected: Tensor) -> float:
    """Return the norm of a row's difference, relative to the row's norm."""
    off = _difference(values, expected).flatten(1).double().norm(dim=1)
    scale = expected.flatten(1).double().norm(dim=1).clamp_min(torch.finfo(expected.dtype).tiny)
    return float(torch.where(off == 0, 0, off / scale).max())


def _difference(values: Tensor, expected: Tensor) -> Tensor:
    """Return a difference that is 0 where both are infinite, or both NaN."""
    same = (values == expected) | (values.isnan() & expected.isnan())
    return torch.where(same, 0, values - expected)


_REMEMBERED: WeakKeyDictionary[nn.Module, dict[Hashable, Plan]] = WeakKeyDictionary()
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCK._at_fork_reinit)  # type: ignore[attr-defined]


class Adapter(nn.Module):
    """A module of ours around a user's, made anew at each call: plans stay with the user's.

    Attributes:
        model: the user's module, or another adapter.
    """

    model: nn.Module

    @property
    def arrangement(self) -> Hashable:
        """What a plan depends on beside the user's module."""
        raise NotImplementedError


def remembered(model: nn.Module, key: Hashable, find: Callable[[], Plan]) -> Plan:
    """Return the plan that was found for a model as it is now, or find one and remember it.

    Args:
        model: the user's module; what is remembered goes with it.
        key: what else the plan depends on: shape, dtype and settings.
        find: proves a plan.
    """
    while isinstance(model, Adapter):
        model, key = unwrapped(model.model), (key, model.arrangement)
    with USER_MODULE:  # while no pass of another thread changes it
        whole = (key, _fingerprint(model))
    with _LOCK:
        known = _REMEMBERED.get(model, {}).get(whole)
    if known is None:
        known = find()
        with _LOCK:
            plans = _REMEMBERED.setdefault(model, {})
            if len(plans) >= _MOST_REMEMBERED:
                plans.clear()
            plans[whole] = known
    return known


_MOST_REMEMBERED = 64


def _fingerprint(model: nn.Module) -> Hashable:
    """Return what changes when modules, hooks or weights of a model are replaced or trained."""
    parts = tuple(
        (
            *(id(part), *part._forward_hooks, *part._forward_pre_hooks),
            *map(id, vars(part).values()),
        )
        for part in model.modules()
    )
    tensors = tuple(
        (id(value), value.dtype, pointer_of(value), 0 if value.is_inference() else value._version)
        for value in (*model.parameters(), *model.buffers())
    )
    return hash(parts), hash(tensors)

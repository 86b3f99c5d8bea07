"""The proof, on the user's own input, that a plan gives the values of the user's module.

The reference is the user's own module, called with one point. Each speed-up is compared with it,
outputs and input gradients, at the user's input and at one other point; what does not agree is
dropped, down to the plain call of the user's module.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import UnilensError, first_line
from .copying import CopyError, private_copy
from .folding import fold_batch_norms
from .guard import USER_MODULE, Guard
from .memory import out_of_memory
from .observation import Observation, joined, observe
from .plans import (
    GRADIENT_TOLERANCE,
    MODEL_ERRORS,
    SPEED_UPS,
    Call,
    Plan,
    differ,
    relative_norm,
    tolerance_of,
)
from .reads import ValueReads

_WRITES_OUTSIDE = "it writes into what its copies share with it"


def prove(
    model: nn.Module, points: Tensor, first: Plan, dtypes: list[torch.dtype], call: Call
) -> tuple[Plan, nn.Module | None]:
    """Return the fastest plan with the outputs and gradients of the user's module, and its copy.

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
    full: Plan | None = None
    for candidate in _candidates(plan):
        try:
            with USER_MODULE, reference.guard:
                module, candidate = prepared(model, candidate, reference.points[:1], call)
            full = full or candidate
            proven, difference = reference.try_copy(module, candidate)
        except CopyError as error:
            return _uncopied(reference, str(error)), None
        except MODEL_ERRORS as error:
            full, proven, difference = full or candidate, None, first_line(error)
        if proven is not None:
            lost = [name for name in SPEED_UPS if getattr(full, name) and not getattr(proven, name)]
            dropped = plan.dropped | dict.fromkeys(lost, reason)
            return dataclasses.replace(proven, dropped=dropped), module
        reason = reason or difference
        if difference == _WRITES_OUTSIDE:
            break
    return _uncopied(reference, reason), None


def prepared(model: nn.Module, plan: Plan, sample: Tensor, call: Call) -> tuple[nn.Module, Plan]:
    """Return a copy prepared for a plan, and the plan, without folding where none is possible."""
    module = private_copy(model, own_weights=plan.own_weights)
    if plan.channels_last:
        module.to(memory_format=torch.channels_last)
    if plan.folded:

        def run() -> None:
            with torch.no_grad():
                call(module, sample, plan)

        batch_norms = any(
            isinstance(layer, nn.modules.batchnorm._NormBase) for layer in module.modules()
        )
        pairs = fold_batch_norms(module, run) if batch_norms else frozenset[str]()
        plan = dataclasses.replace(plan if pairs else plan.without("", "folded"), pairs=pairs)
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
    """The outputs and gradients of the user's module at both points, and what guards it."""

    model: nn.Module
    guard: Guard
    points: Tensor
    plan: Plan
    call: Call
    observations: list[Observation]

    def try_copy(self, module: nn.Module, plan: Plan) -> tuple[Plan | None, str]:
        """Return the plan, or None and the reason where a copy gives other values."""
        with USER_MODULE:
            of_copy, of_user = Guard(module), self.guard
            with of_copy, of_user:  # what both keep, as a list of their class, counts as the user's
                saved, reason = self._compare(module, plan)
        if of_user.changed or of_user.changed_outside or of_copy.changed_outside:
            return None, _WRITES_OUTSIDE
        if reason:
            return None, reason
        plan = dataclasses.replace(plan, saved_bytes=saved)
        if not of_copy.changed:
            return plan, ""
        with USER_MODULE, of_user, of_copy:  # does it depend on what it kept?
            reason = self._compare(module, plan)[1] or self._compare(module, plan)[1]
        return dataclasses.replace(plan, stateful=True, restored=bool(reason)), ""

    def _compare(self, module: nn.Module, plan: Plan) -> tuple[int, str]:
        """Return the saved bytes of a point, and how a copy's values differ, or nothing."""
        microbatches = [self.points] if plan.together else self.points.split(1)
        observed = joined([observe(module, points, plan, self.call) for points in microbatches])
        return observed.saved_bytes // 2, self.difference(observed, plan)

    def difference(self, observed: Observation, plan: Plan) -> str:
        """Return how an observation differs beyond the tolerance, or nothing."""
        expected = joined(self.observations[: len(observed.outputs)])
        if observed.error and not expected.error and expected.gradient is not None:
            return observed.error
        if reason := differ(observed.outputs, expected.outputs, plan):
            return reason
        if expected.gradient is None or observed.gradient is None:
            return ""
        off = relative_norm(observed.gradient, expected.gradient)
        if not off <= tolerance_of(GRADIENT_TOLERANCE, plan, expected.outputs.dtype):
            return f"its input gradients differ by {off:.1g} of their norm"
        return ""


def _observe_user(
    model: nn.Module, points: Tensor, plan: Plan, dtypes: list[torch.dtype], call: Call
) -> _Reference:
    """Observe the user's module at each point alone, and what it needs."""
    first, error, guard = None, None, Guard(model)
    for dtype in dtypes:
        plan = dataclasses.replace(plan, dtype=dtype)
        try:
            first, wrote = _guarded(model, guard, points[:1], plan, call)
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
        plan = dataclasses.replace(plan, reads_values=True)
    if "checkpoint" in first.error.lower() and ".grad()" in first.error:
        plan = dataclasses.replace(plan, reentrant=True, backward_error="")
        plan = plan.without("reentrant checkpointing", *SPEED_UPS)
    try:
        second, wrote = _guarded(model, guard, points[1:], plan, call)
        plan = dataclasses.replace(plan, own_weights=plan.own_weights or wrote)
    except MODEL_ERRORS:  # the other point may lie outside of what the model takes
        points, second = points[:1].expand_as(points), first
    return _Reference(model, guard, points, plan, call, [first, second])


def _guarded(
    model: nn.Module, guard: Guard, point: Tensor, plan: Plan, call: Call
) -> tuple[Observation, bool]:
    """Observe the user's module, and return whether a pass writes into its tensors."""
    plain = dataclasses.replace(plan.without("", *SPEED_UPS), reentrant=False)
    with USER_MODULE:
        reads = ValueReads(point)
        with guard, contextlib.nullcontext() if guard.scripted else reads:
            observed = observe(model, point, plain, call)
    return observed._replace(reads_values=reads.found), guard.wrote_tensors


def _uncopied(reference: _Reference, reason: str) -> Plan:
    """Return the plan of the user's own module; raise where its calls do not agree."""
    again, _ = _guarded(
        reference.model, reference.guard, reference.points[:1], reference.plan, reference.call
    )
    differs = reference.difference(again, reference.plan)
    if differs:
        raise UnilensError(
            "expected a model that gives one input the same outputs every time, but for a second "
            f"call {differs}; take what is random, such as dropout that is on in eval mode, out of "
            "its forward"
        )
    return reference.plan.without(reason, "copied", *SPEED_UPS)

"""Copies of a model, prepared as plans say, each lent to one thread at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

from torch import Tensor, nn

from .calls import ModelCalls
from .copying import private_copy
from .guard import USER_MODULE, Guard
from .module_state import ModuleState
from .plan_cache import Copies, Copy
from .plans import Plan
from .proof import prepared
from .unlearning import Learners, weights_of
from .workers import Workers


class ModulePool:
    """Copies of a module, made when a thread finds none that is idle.

    Args:
        module: the user's.
        calls: run a copy, to prepare it.
        workers: the threads that borrow copies.

    Attributes:
        kept: the copies that live as long as the model; an owner of the pool sets them.
    """

    def __init__(
        self,
        module: nn.Module,
        calls: ModelCalls,
        workers: Workers,
    ) -> None:
        self._module, self._calls, self._workers = module, calls, workers
        self.clear()

    def clear(self) -> None:
        """Forget all copies: the weights have changed."""
        self._own = self.kept = Copies()
        self._learners: dict[tuple[int, str], Learners] = {}

    @contextlib.contextmanager
    def borrowed(self, plan: Plan, sample: Tensor) -> Iterator[nn.Module]:
        """Lend a module that a plan runs: a copy that no other thread uses, or the user's own."""
        if not plan.copied:
            with USER_MODULE, Guard(self._module):
                yield self._module
            return
        copies, base = self._base(plan, sample)
        idle = copies.idle[id(base)]
        try:
            copied = idle.pop()
        except IndexError:
            with copies.lock:
                copied = self._watched(self._copy_of(base, plan, sample), plan)
        with self.restored(copied.module, plan):
            yield copied.module
        if not (plan.reads_values and copied.changed):
            idle.append(copied)

    def restored(self, module: nn.Module, plan: Plan) -> contextlib.AbstractContextManager[object]:
        """Put back what the block changes in a copy, where it may matter to the next pass."""
        return Guard(module) if plan.restored else contextlib.nullcontext()

    def learners(self, plan: Plan, sample: Tensor, weights: str) -> Learners:
        """Return the copies that unlearn, which are kept."""
        copies, base = self._base(plan, sample)
        with copies.lock:
            key = (id(base), weights)
            if key not in self._learners:
                self._learners[key] = Learners(base, weights_of(base, weights))
            return self._learners[key]

    def _base(self, plan: Plan, sample: Tensor) -> tuple[Copies, nn.Module]:
        """Return the copy that a plan's copies are made from, and those."""
        copies = self._copies(plan)
        with copies.lock:
            if _key(plan) not in copies.bases:
                with self._workers.alone():
                    self.adopt(plan, self._prepared(plan, sample))
            return copies, copies.bases[_key(plan)]

    def adopt(self, plan: Plan, base: nn.Module) -> None:
        """Take a copy that is prepared for a plan as the one that its others are made from."""
        copies = self._copies(plan)
        with copies.lock, self._workers.alone():
            if _key(plan) not in copies.bases:
                # With one worker it is run itself, and a second thread of the user's makes another.
                idle = [self._watched(base, plan)] if self._workers.count == 1 else []
                copies.add(_key(plan), base, idle)

    def _watched(self, module: nn.Module, plan: Plan) -> Copy:
        """Return a new copy, with its state where that is compared: it lasts, or values decide."""
        compared = self._copies(plan).lasting or (plan.reads_values and not plan.stateful)
        return Copy(module, ModuleState(module) if compared else None)

    def _copies(self, plan: Plan) -> Copies:
        """Return the copies that live as long as the model, or those of this pool alone.

        Copies with weights of their own take memory, what passes leave in a copy is for the passes
        of one evaluator, and where values decide what is run, folding fits the first input alone.
        """
        private = plan.own_weights or plan.stateful or plan.reads_values
        return self._own if private else self.kept

    def _copy_of(self, base: nn.Module, plan: Plan, sample: Tensor) -> nn.Module:
        if self._workers.count > 1:
            return private_copy(base, own_weights=plan.own_weights)
        return self._prepared(plan, sample)  # the base itself is running

    def _prepared(self, plan: Plan, sample: Tensor) -> nn.Module:
        return prepared(self._module, plan, sample, self._calls.raw)[0]


def _key(plan: Plan) -> Hashable:
    """Return what a copy prepared for a plan depends on."""
    return plan.own_weights, plan.folded and plan.pairs, plan.channels_last

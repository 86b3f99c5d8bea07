"""Copies of a model, prepared as plans say, each lent to one thread at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from torch import Tensor, nn

from .calls import ModelCalls
from .copying import private_copy
from .guard import USER_MODULE, Guard
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
        lock: taken while a copy is made.
    """

    def __init__(
        self,
        module: nn.Module,
        calls: ModelCalls,
        workers: Workers,
        lock: threading.RLock,
    ) -> None:
        self._module, self._calls, self._workers, self._lock = module, calls, workers, lock
        self._bases: dict[tuple[bool, ...], nn.Module] = {}
        self._idle: dict[int, list[nn.Module]] = {}
        self._learners: dict[tuple[int, str], Learners] = {}

    def clear(self) -> None:
        """Forget all copies: the weights have changed."""
        for copies in (self._bases, self._idle, self._learners):
            copies.clear()

    @contextlib.contextmanager
    def borrowed(self, plan: Plan, sample: Tensor) -> Iterator[nn.Module]:
        """Lend a module that a plan runs: a copy that no other thread uses, or the user's own."""
        if not plan.copied:
            with USER_MODULE, Guard(self._module):
                yield self._module
            return
        base = self._base(plan, sample)
        idle = self._idle[id(base)]
        try:
            module = idle.pop()
        except IndexError:
            with self._lock:
                module = self._copy_of(base, plan, sample)
        with self.restored(module, plan):
            yield module
        idle.append(module)

    def restored(self, module: nn.Module, plan: Plan) -> contextlib.AbstractContextManager[object]:
        """Put back what the block changes in a copy, where the plan asks for it."""
        return Guard(module) if plan.restored else contextlib.nullcontext()

    def learners(self, plan: Plan, sample: Tensor, weights: str) -> Learners:
        """Return the copies that unlearn, which are kept."""
        base = self._base(plan, sample)
        with self._lock:
            key = (id(base), weights)
            if key not in self._learners:
                self._learners[key] = Learners(base, weights_of(base, weights))
            return self._learners[key]

    def _base(self, plan: Plan, sample: Tensor) -> nn.Module:
        """Return the copy that a plan's copies are made from."""
        key = (plan.own_weights, plan.folded, plan.channels_last)
        with self._lock:
            if key not in self._bases:
                with self._workers.alone():
                    base = self._prepared(plan, sample)
                self._bases[key] = base
                # With one worker it is run itself, and a second thread of the user's makes another.
                self._idle[id(base)] = [base] if self._workers.count == 1 else []
            return self._bases[key]

    def _copy_of(self, base: nn.Module, plan: Plan, sample: Tensor) -> nn.Module:
        if self._workers.count > 1:
            return private_copy(base, own_weights=plan.own_weights)
        return self._prepared(plan, sample)  # the base itself is running

    def _prepared(self, plan: Plan, sample: Tensor) -> nn.Module:
        copied = private_copy(self._module, own_weights=plan.own_weights)
        return prepared(copied, plan, sample, self._calls.raw)[0]

"""A guard that restores what a pass changes in a module, and in the state around it."""

from __future__ import annotations

import os
import threading
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from .bindings import state_outside
from .object_graph import reachable
from .snapshots import Snapshot, WriteWatch, snapshot_of

USER_MODULE = threading.RLock()
"""Held while a user's own module runs, so that what is put back afterwards is what was there."""
if hasattr(os, "register_at_fork"):  # a child has no thread that would let go of it
    os.register_at_fork(after_in_child=USER_MODULE._at_fork_reinit)  # type: ignore[attr-defined]


class Guard:
    """Restores, when a block ends, the state of a model that the block changed.

    That is: the values of its tensors and arrays (bitwise, those written through `.data` too),
    their `.grad` and `.requires_grad`, attributes and slots, the content of dictionaries, lists and
    sets, the states of random generators; what hooks and closures enclose; and what the model's
    own code names of its classes, modules and globals, also through other functions. It can be used
    for one block after another.

    Attributes:
        changed: whether the block changed the model's own state.
        changed_outside: whether it changed state outside of the model.
        wrote_tensors: whether it wrote into a tensor.
        scripted: whether TorchScript is in the model, which does not run under a dispatch mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.changed = self.changed_outside = self.wrote_tensors = False
        inside = list(reachable(model))
        outside = state_outside(inside)
        self._bindings, seen = outside.bound, {id(value) for value in inside}
        around = [
            value for root in outside.mutable for value in reachable(root) if id(value) not in seen
        ]
        self._tensors = [value for value in (*inside, *around) if isinstance(value, Tensor)]
        self._leaves = [value for value in self._tensors if value.is_leaf]
        self._tensors += [value.grad for value in self._leaves if value.grad is not None]
        self._own = [value for value in inside if snapshot_of(value) is not None]
        self._around = [value for value in around if snapshot_of(value) is not None]
        self.scripted = any(isinstance(value, torch.jit.ScriptModule) for value in inside)

    def __enter__(self) -> Self:
        self._before, self._before_around = (
            [cast(Snapshot, snapshot_of(value)) for value in values]
            for values in (self._own, self._around)
        )
        self._bound = [binding.read() for binding in self._bindings]
        self._aliases = [_alias(value) for value in self._tensors]
        self._grads = [(value.requires_grad, value.grad) for value in self._leaves]
        self._watch = WriteWatch(self._tensors, everything=self.scripted)
        if not self.scripted:  # a mode takes numbers for tensors in it
            self._watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if not self.scripted:
            self._watch.__exit__(*error)
        self.wrote_tensors = self._watch.restore()
        for value, alias in zip(self._tensors, self._aliases, strict=True):
            if alias is not None and (
                value.data_ptr() != alias.data_ptr() or value.shape != alias.shape
            ):
                value.data = alias
                self.wrote_tensors = True
        self.changed = any([self.wrote_tensors, *(snapshot.restore() for snapshot in self._before)])
        for value, (required, grad) in zip(self._leaves, self._grads, strict=True):
            if value.requires_grad != required or value.grad is not grad:
                value.requires_grad_(required).grad = grad
                self.changed = True
        pairs = zip(self._bindings, self._bound, strict=True)
        self.changed_outside = any(
            [
                *(snapshot.restore() for snapshot in self._before_around),
                *(binding.restore(before) for binding, before in pairs),
            ]
        )


def _alias(value: Tensor) -> Tensor | None:
    plain = type(value) in (Tensor, nn.Parameter, nn.Buffer) and value.layout == torch.strided
    return value.detach() if plain and not value.is_inference() else None

"""Plans and copies, remembered with the user's module for as long as it stays as it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from torch import nn

from ..outputs import OutputSpec
from .copying import unwrapped
from .guard import USER_MODULE
from .memory import pointer_of
from .module_state import ModuleState
from .plans import Plan
from .workers import Workers

_REMEMBERED: WeakKeyDictionary[nn.Module, Learned] = WeakKeyDictionary()
_LOCK = threading.Lock()
_MOST_REMEMBERED = 64


class Adapter(nn.Module):
    """A module of unilens around a user's, created at each call; plans belong to the user's.

    Attributes:
        model: the user's module, or another adapter.
        output_spec: what its outputs are; None where they are those of `model`.
        told_by_arrangement: whether two adapters of the same arrangement do the same, so that a
            copy of one can stand for the other.
    """

    model: nn.Module
    output_spec: OutputSpec | None = None
    told_by_arrangement: bool = False

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the user's model: a layer, or the lookup of its labels."""
        if name in ("model", "module") or name.startswith("_"):
            return super().__getattr__(name)
        return getattr(super().__getattr__("model"), name)

    @property
    def arrangement(self) -> Hashable:
        """What a plan depends on besides the user's module."""
        raise NotImplementedError


class Copy(NamedTuple):
    """A copy of a module, and how it was before any pass; None where that is not looked at."""

    module: nn.Module
    state: ModuleState | None

    @property
    def changed(self) -> bool:
        """Whether passes have changed what it keeps, or may have."""
        return self.state is not None and not self.state.is_that_of(self.module)


class Copies:
    """Copies of a module that share its weights.

    Args:
        state: of the module, where the copies live as long as it stays as it is.

    Attributes:
        lock: taken while one is made.
        lasting: whether they outlive an evaluator.
        bases: the first copy of each kind, from which further ones are made.
        idle: copies that no thread uses, by the id of their base.
    """

    def __init__(self, state: ModuleState | None = None) -> None:
        self.lock = threading.RLock()
        self.lasting = state is not None
        self.bases: dict[Hashable, nn.Module] = {}
        self.idle: dict[int, list[Copy]] = {}
        self._state = state

    def add(self, key: Hashable, base: nn.Module, idle: list[Copy]) -> None:
        """Keep a base, and the copies of it that can be used."""
        if self._state is not None:
            self._state.note_values(base)
        self.bases[key], self.idle[id(base)] = base, idle

    def drop_changed(self) -> None:
        """Drop the copies that would carry what passes left in them on to other calls."""
        for idle in self.idle.values():
            for copied in list(idle):
                if copied.changed:
                    with suppress(ValueError):  # another thread has taken it
                        idle.remove(copied)


class Learned:
    """What was learned of a user's module, for as long as it stays as it is.

    Args:
        module: the user's, of which no reference is kept.
    """

    def __init__(self, module: nn.Module) -> None:
        self._plans: dict[Hashable, Plan] = {}
        self._copies: dict[Hashable, Copies] = {}
        self._note(module)

    def _note(self, module: nn.Module) -> None:
        self._state = ModuleState(module)
        self._fingerprint = None if self._state.known else _fingerprint(module)

    def is_of(self, module: nn.Module) -> bool:
        """Return whether the module is as it was."""
        if self._state.known:
            return self._state.is_that_of(module)
        return self._fingerprint == _fingerprint(module)

    def plan(self, model: nn.Module, key: Hashable, find: Callable[[], Plan]) -> Plan:
        """Return the plan that was proven for a model, or prove one and remember it.

        Args:
            model: the user's module, or an adapter around it.
            key: what else the plan depends on: shape, dtype and settings.
            find: proves a plan.
        """
        adapters, module = _inside(model)
        key = (key, *(adapter.arrangement for adapter in adapters))
        plan = self._plans.get(key)
        if plan is None:
            plan = find()
            with USER_MODULE:
                if not self._copies and not self.is_of(module):
                    self._note(module)  # a pass wrote, and what it wrote was put back
            if len(self._plans) >= _MOST_REMEMBERED:
                self._plans.clear()
            self._plans[key] = plan
        return plan

    def copies(self, model: nn.Module) -> Copies:
        """Return the copies of a model, or none yet; where its state is not known, its own."""
        adapters, _ = _inside(model)
        if not self._state.known or not all(one.told_by_arrangement for one in adapters):
            return Copies()
        with _LOCK:
            key = tuple(adapter.arrangement for adapter in adapters)
            copies = self._copies.setdefault(key, Copies(self._state))
        copies.drop_changed()
        return copies


def learned_of(model: nn.Module) -> Learned:
    """Return what was learned of a model, or of the user's module in it, as it is now."""
    _, module = _inside(model)
    with USER_MODULE, Workers(None).alone():  # while no pass of another thread changes it
        with _LOCK:
            known = _REMEMBERED.get(module)
        if known is None or not known.is_of(module):
            known = Learned(module)
            with _LOCK:
                _REMEMBERED[module] = known
        return known


def _inside(model: nn.Module) -> tuple[list[Adapter], nn.Module]:
    """Return the adapters around a user's module, and the module."""
    adapters = []
    while isinstance(model, Adapter):
        adapters.append(model)
        model = unwrapped(model.model)
    return adapters, model


def _fingerprint(model: nn.Module) -> Hashable:
    """Return what changes when modules, hooks or weights of a model are replaced or trained."""
    modules = tuple(
        (
            *(id(module), *module._forward_hooks, *module._forward_pre_hooks),
            *map(id, vars(module).values()),
        )
        for module in model.modules()
    )
    tensors = tuple(
        (id(value), value.dtype, pointer_of(value), 0 if value.is_inference() else value._version)
        for value in (*model.parameters(), *model.buffers())
    )
    return hash(modules), hash(tensors)


def _after_fork_in_child() -> None:
    """Forget the copies: another thread of the parent may have held their locks."""
    _LOCK._at_fork_reinit()  # type: ignore[attr-defined]
    for learned in list(_REMEMBERED.values()):
        learned._copies.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)

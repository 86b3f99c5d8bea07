"""Plans that were proven, remembered with the user's module as long as it stays as it is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ..outputs import OutputSpec
from .copying import unwrapped
from .guard import USER_MODULE
from .memory import pointer_of
from .plans import Plan

_REMEMBERED: WeakKeyDictionary[nn.Module, dict[Hashable, Plan]] = WeakKeyDictionary()
_LOCK = threading.Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_LOCK._at_fork_reinit)  # type: ignore[attr-defined]
_MOST_REMEMBERED = 64


class Adapter(nn.Module):
    """A module of unilens around a user's, created at each call; plans belong to the user's.

    Attributes:
        model: the user's module, or another adapter.
        output_spec: what its outputs are; None where they are those of `model`.
    """

    model: nn.Module
    output_spec: OutputSpec | None = None

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the user's model: a layer, or the lookup of its labels."""
        if name in ("model", "module") or name.startswith("_"):
            return super().__getattr__(name)
        return getattr(super().__getattr__("model"), name)

    @property
    def arrangement(self) -> Hashable:
        """What a plan depends on besides the user's module."""
        raise NotImplementedError


def remembered(model: nn.Module, key: Hashable, find: Callable[[], Plan]) -> Plan:
    """Return the plan that was found for a model as it is now, or find one and remember it.

    Args:
        model: the user's module; its plans are dropped with it.
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

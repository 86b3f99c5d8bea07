"""State outside of a model that its own code names: of its classes, modules and globals."""

from __future__ import annotations

import dis
import sys
import types
from collections import UserDict, UserList, deque
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor, nn

from .object_graph import EMPTY, is_library, is_of_library, slots_of


class _Binding(NamedTuple):
    """A name outside of the model that its code can bind anew: of a class, a module or globals."""

    owner: Any
    name: str

    def read(self) -> Any:
        """Return what the name is bound to."""
        names = self.owner if isinstance(self.owner, dict) else vars(self.owner)
        return names.get(self.name, EMPTY)

    def restore(self, before: Any) -> bool:
        """Bind the name as before, and return whether it had changed."""
        if self.read() is before:
            return False
        if isinstance(self.owner, dict):
            if before is EMPTY:
                del self.owner[self.name]
            else:
                self.owner[self.name] = before
        elif before is EMPTY:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, before)
        return True


class Outside(NamedTuple):
    """What a model's own code names outside of the model.

    Attributes:
        mutable: containers and objects.
        bound: names that it binds.
        read: globals that it names.
        functions: and methods of the user's.
    """

    mutable: list[Any]
    bound: list[_Binding]
    read: list[_Binding]
    functions: list[types.FunctionType]


def state_outside(kept: list[Any]) -> Outside:
    """Return what the model's own code names outside of the model.

    Functions of the user's that it names are followed, and the attributes that it sets are looked
    for in the user's modules and classes that it names.
    """
    mutable: list[Any] = []
    read: list[_Binding] = []
    functions: list[types.FunctionType] = []
    bindings: dict[tuple[int, str], _Binding] = {}
    own_kinds = {type(value) for value in kept if isinstance(value, nn.Module)}
    own_kinds = {kind for kind in own_kinds if not is_of_library(kind)}
    waiting: list[Any] = list({base for value in kept for base in type(value).__mro__})
    waiting += [getattr(value, "__func__", value) for value in kept]
    seen: set[int] = set()
    while waiting:
        code = waiting.pop()
        if not isinstance(code, (type, types.FunctionType)) or id(code) in seen:
            continue
        seen.add(id(code))
        if is_of_library(code):
            continue
        if isinstance(code, type):
            members = vars(code).values()
            waiting += [getattr(member, "__func__", member) for member in members]
            mutable += [member for member in members if _is_mutable(member)]
            continue
        names, bound, attributes = _names(code.__code__)
        functions.append(code)
        read += [_Binding(code.__globals__, name) for name in names if name in code.__globals__]
        known = [code.__globals__[name] for name in names if name in code.__globals__]
        known += [sys.modules[name] for name in names if name in sys.modules]
        waiting += known
        mutable += [value for value in known if _is_mutable(value)]
        pairs = [(code.__globals__, name) for name in bound]
        owners = [*own_kinds, *(value for value in known if _has_users_attributes(value))]
        pairs += [(owner, name) for owner in owners for name in attributes]
        bindings |= {(id(owner), name): _Binding(owner, name) for owner, name in pairs}
    return Outside(mutable, list(bindings.values()), read, functions)


@cache
def _names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Return the names that code uses, the globals that it binds, the attributes that it sets."""
    codes = list(_codes(code))
    steps = [(step.opname, step.argval) for inner in codes for step in dis.get_instructions(inner)]
    bound = {name for kind, name in steps if kind in ("STORE_GLOBAL", "DELETE_GLOBAL")}
    attributes = {name for kind, name in steps if kind in ("STORE_ATTR", "DELETE_ATTR")}
    names = {name for inner in codes for name in inner.co_names}
    texts = {value for inner in codes for value in inner.co_consts if isinstance(value, str)}
    if not names.isdisjoint(("setattr", "delattr")):
        attributes |= texts
    if "globals" in names:
        bound |= texts
    return names, bound, attributes


def _has_users_attributes(value: Any) -> bool:
    """Return whether a global is a module or a class of the user's."""
    if isinstance(value, types.ModuleType):
        return not is_library(value.__name__)
    return isinstance(value, type) and not is_of_library(value)


def _is_mutable(value: Any) -> bool:
    """Return whether a value of a class or module is a container, or an object of the user's."""
    if isinstance(value, (dict, list, set, deque, Tensor, numpy.ndarray, bytearray)):
        return True
    if isinstance(value, (torch.Generator, numpy.random.Generator)):
        return True
    code = isinstance(value, (type, types.ModuleType, types.FunctionType))
    if isinstance(value, (types.SimpleNamespace, UserDict, UserList)):
        return True
    named = hasattr(value, "__dict__") or bool(slots_of(value))
    return not code and named and not is_of_library(type(value))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)

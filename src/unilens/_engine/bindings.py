"""Names that a pass can bind to something else: in closures, slots, classes and globals."""

from __future__ import annotations

import dis
import functools
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

_LIBRARIES = sys.stdlib_module_names | {"torch", "torchvision", "timm", "transformers", "unilens"}


class Bindings:
    """Puts back what names refer to where a pass has bound them to something else.

    Args:
        kept: what a model keeps: modules, objects, functions.
    """

    def __init__(self, kept: list[Any]) -> None:
        self._namespaces = list(_namespaces(kept))
        self._before = [space.read() for space in self._namespaces]

    def restore(self) -> bool:
        """Put back what has changed, and return whether anything had."""
        changed = False
        for space, before in zip(self._namespaces, self._before, strict=True):
            now = space.read()
            for name in now.keys() - before.keys():
                space.delete(name)
                changed = True
            for name, value in before.items():
                if name not in now or now[name] is not value:
                    space.write(name, value)
                    changed = True
        return changed


@dataclass(frozen=True)
class _Namespace:
    """The names of one cell, object, class or module, and how to bind and delete one."""

    read: Callable[[], dict[str, Any]]
    write: Callable[[str, Any], object]
    delete: Callable[[str], object]


def _namespaces(kept: list[Any]) -> Iterator[_Namespace]:
    functions = [value for value in kept if isinstance(value, types.FunctionType)]
    classes = {base for kind in {type(value) for value in kept} for base in kind.__mro__}
    for kind in classes:
        if not _of_library(kind):
            yield _of_owner(kind, functools.partial(_attributes, kind))
            functions += [one for one in vars(kind).values() if isinstance(one, types.FunctionType)]
    for value in kept:
        if slots_of(value):
            yield _of_owner(value, functools.partial(slots_of, value))
    for function in functions:
        if _of_library(function):
            continue
        for cell in function.__closure__ or ():
            yield _of_owner(cell, functools.partial(_cell, cell))
        if names := _bound_globals(function.__code__):
            known = function.__globals__
            yield _Namespace(
                functools.partial(_chosen, known, names), known.__setitem__, known.__delitem__
            )


def _of_owner(owner: object, read: Callable[[], dict[str, Any]]) -> _Namespace:
    return _Namespace(read, functools.partial(setattr, owner), functools.partial(delattr, owner))


def _attributes(kind: type) -> dict[str, Any]:
    return {name: value for name, value in vars(kind).items() if not name.startswith("__")}


def slots_of(value: object) -> dict[str, Any]:
    """Return what the slots of an object of the user's hold."""
    if _of_library(type(value)):
        return {}
    found: dict[str, Any] = {}
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType) and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _cell(cell: types.CellType) -> dict[str, Any]:
    try:
        return {"cell_contents": cell.cell_contents}
    except ValueError:
        return {}


def _chosen(known: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: known[name] for name in names if name in known}


@functools.lru_cache(maxsize=4096)
def _bound_globals(code: types.CodeType) -> frozenset[str]:
    """Return the globals that a function's code binds."""
    names = {one.argval for one in dis.get_instructions(code) if one.opname == "STORE_GLOBAL"}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            names |= _bound_globals(inner)
    return frozenset(names)


def _of_library(what: Any) -> bool:
    return (what.__module__ or "").partition(".")[0] in _LIBRARIES

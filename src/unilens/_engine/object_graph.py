"""The objects that a module refers to, which copies and guards walk."""

from __future__ import annotations

import sys
import types
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch

ATOMS = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device)
"""Types of values that keep nothing and never change."""
_LIBRARIES = frozenset(
    ("torch", "torchvision", "timm", "transformers", "unilens", "builtins", "typing", "abc")
)
EMPTY = object()
"""Stands for the content of an empty cell, and for a name that is not bound."""


def reachable(root: object) -> Iterator[Any]:
    """Yield the objects reachable from a module: containers, functions, tensors and others."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, ATOMS) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        waiting += _kept_by(value)


def _kept_by(value: Any) -> list[Any]:
    """Return the objects that an object refers to directly."""
    if isinstance(value, (types.ModuleType, torch.Generator)):
        return []
    if isinstance(value, Mapping):
        kept = getattr(value, "__dict__", None)
        return [*value.keys(), *value.values(), *([kept] if kept else [])]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, torch.jit.ScriptModule):  # whose tensors are none of its attributes
        return [*value.parameters(), *value.buffers()]
    kept = getattr(value, "__dict__", None)
    children: list[Any] = [kept] if isinstance(kept, dict) else []
    children += [getattr(value, name) for name in slots_of(value)]
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        contents = [content for content in map(cell_content, cells) if content is not EMPTY]
        children += [value.__defaults__, value.__kwdefaults__, *cells, *contents]
    return children


def cell_content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def slots_of(value: Any) -> list[str]:
    """Return the slots of an object of the user's that have values."""
    kind = type(value)
    if is_of_library(kind) or kind.__module__ == "builtins":
        return []
    names = [
        name
        for base in kind.__mro__
        for name in _one_or_more(vars(base).get("__slots__", ()))
        if not name.startswith("__")
    ]
    return [name for name in names if hasattr(value, name)]


def _one_or_more(names: Any) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def is_of_library(what: Any) -> bool:
    """Return whether a class or function is of torch, an installed package, or Python itself."""
    return is_library(what.__module__ or "builtins")


@cache
def is_library(name: str) -> bool:
    root = name.partition(".")[0]
    if root in _LIBRARIES or (root in sys.stdlib_module_names and root != "__main__"):
        return True
    return "site-packages" in (getattr(sys.modules.get(name), "__file__", None) or "")

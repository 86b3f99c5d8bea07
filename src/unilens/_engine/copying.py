"""Private copies of a user's model: weights shared, all other state its own."""

from __future__ import annotations

import copy
import threading
import types
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UnilensError, first_line
from .guard import USER_MODULE
from .object_graph import ATOMS, EMPTY, cell_content, reachable

_SHARED = (
    *(types.ModuleType, type(threading.Lock()), type(threading.RLock())),
    torch.jit.ScriptFunction,
)


class CopyError(UnilensError):
    """A model that cannot be copied."""


def private_copy(model: nn.Module, *, own_weights: bool = False) -> nn.Module:
    """Return a copy whose parameters are frozen and whose other state is its own.

    Functions that the model keeps (hooks, closures, partials, in containers too) are copied with
    what they enclose, so that the copy's write to the copy's. Weak references to a copied object
    refer to its copy.

    Args:
        model: any module; it is not changed.
        own_weights: whether parameters get storage of their own; otherwise they share the model's.

    Raises:
        CopyError: something in the model cannot be copied.
    """
    try:
        with USER_MODULE, torch.inference_mode(False):  # while no other thread runs it
            kept = list(reachable(model))
            cache = _tensor_memo(model, kept, own_weights)
            functions = _copied_functions(kept, cache)
            for submodule in model.modules():
                if (inner := unwrapped(submodule)) is not submodule:
                    cache[id(submodule)] = copy.deepcopy(inner, cache)
            made = copy.deepcopy(model, cache)
            for old, new in functions:
                _fill(old, new, cache)
            own_ids = {id(submodule) for submodule in model.modules()}
            for submodule in made.modules():
                if id(submodule) not in own_ids:
                    _retarget(vars(submodule), cache)
    except Exception as error:  # a user's module can hold anything: locks, streams, handles
        raise CopyError(
            f"expected a model that copy.deepcopy can copy, got {type(error).__name__}: "
            f"{first_line(error)}; {_remedy(model)}"
        ) from error
    if any(id(submodule) in own_ids for submodule in made.modules()):
        raise CopyError(
            "expected a model that copy.deepcopy can copy, but the copy still holds modules of the "
            "model itself; mend its __deepcopy__"
        )
    for submodule in made.modules():
        _retarget(vars(submodule), cache)
    for value in made.parameters():  # those of TorchScript come with a graph
        value.detach_().requires_grad_(False)
    return made


def _remedy(model: nn.Module) -> str:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if any(isinstance(submodule, wrappers) for submodule in model.modules()):
        return "pass the module inside the wrapper, its .module"
    return "take out of it what cannot be copied"


def _tensor_memo(model: nn.Module, kept: list[Any], own_weights: bool) -> dict[int, Any]:
    """Return the tensors of a copy, by the ids of the model's tensors that they replace."""
    cache: dict[int, Any] = {}
    for value in model.parameters():
        shared = value.is_inference() or own_weights
        data = value.detach().clone() if shared else value.detach()
        cache[id(value)] = nn.Parameter(data, requires_grad=False)
    for value in kept:
        if isinstance(value, Tensor) and id(value) not in cache and not value.is_leaf:
            cache[id(value)] = value.detach().clone()  # from an earlier pass, with its graph
        elif isinstance(value, _SHARED):
            cache[id(value)] = value
    return cache


_Pair = tuple[types.FunctionType, types.FunctionType]


def _copied_functions(kept: list[Any], cache: dict[int, Any]) -> list[_Pair]:
    """Return the functions that enclose values, each with a copy that is still empty."""
    pairs: list[_Pair] = []
    for function in kept:
        if isinstance(function, types.FunctionType) and _encloses(function):
            cells = tuple(  # functions that share a variable go on sharing it
                cache.setdefault(id(cell), types.CellType()) for cell in function.__closure__ or ()
            )
            made = types.FunctionType(
                function.__code__, function.__globals__, function.__name__, None, cells
            )
            cache[id(function)] = made
            pairs.append((function, made))
    return pairs


def _encloses(function: types.FunctionType) -> bool:
    """Return whether a function keeps values: in its closure or its defaults."""
    kept = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return bool(function.__closure__) or not all(isinstance(value, ATOMS) for value in kept)


def _fill(old: types.FunctionType, new: types.FunctionType, cache: dict[int, Any]) -> None:
    """Give a copied function copies of what the original encloses and keeps."""
    for cell, filled in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
        content = cell_content(cell)
        if content is not EMPTY and cell_content(filled) is EMPTY:
            filled.cell_contents = _copied(content, cache)
    new.__defaults__ = copy.deepcopy(old.__defaults__, cache)
    new.__kwdefaults__ = copy.deepcopy(old.__kwdefaults__, cache)
    new.__dict__.update(copy.deepcopy(vars(old), cache))
    new.__qualname__, new.__doc__ = old.__qualname__, old.__doc__


def _copied(value: Any, cache: dict[int, Any]) -> Any:
    """Return a copy of what a function encloses, or the thing itself where it has none.

    Where that is wrong, the copied model writes into the user's objects or gives other outputs;
    both are looked for before it is used.
    """
    if isinstance(value, weakref.ref):
        return _retargeted(value, cache)
    try:
        return copy.deepcopy(value, cache)
    except Exception:
        return value


def _retargeted(reference: weakref.ref[Any], cache: Mapping[int, Any]) -> weakref.ref[Any]:
    target = cache.get(id(reference()))
    return reference if target is None else weakref.ref(target)


def _retarget(container: Any, cache: Mapping[int, Any]) -> None:
    """Point the weak references in a dictionary or list, and in those inside it, to the copies."""
    items = list(container.items()) if isinstance(container, dict) else list(enumerate(container))
    for key, value in items:
        if isinstance(value, weakref.ref):
            container[key] = _retargeted(value, cache)
        elif isinstance(value, partial):
            function: Any = value
            args, words = list(function.args), dict(function.keywords)
            _retarget(args, cache)
            _retarget(words, cache)
            function.__setstate__((value.func, tuple(args), words, vars(value)))
        elif isinstance(value, (dict, list)) and value:
            _retarget(value, cache)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside wrappers that run it as it is: for several devices, or compiled.

    A wrapper with hooks of its own is left in place.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    return model


def _inside(model: nn.Module) -> nn.Module | None:
    hooks = model._forward_hooks or model._forward_pre_hooks
    if isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)) and not hooks:
        return model.module
    if isinstance(model, torch.jit.ScriptModule):
        return None
    inner = model._modules.get("_orig_mod")
    return inner if isinstance(inner, nn.Module) and not hooks else None

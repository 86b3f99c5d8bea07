"""Private copies of a user's model, and a guard that puts back what a pass changes in one."""

from __future__ import annotations

import copy
import dis
import os
import sys
import threading
import types
import weakref
from collections import OrderedDict, UserDict, UserList, deque
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any, NamedTuple, Self, cast

import numpy
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UnilensError, first_line

USER_MODULE = threading.RLock()
"""Held while a user's own module runs, so that what is put back afterwards is what was there."""
if hasattr(os, "register_at_fork"):  # a child has no thread that would let go of it
    os.register_at_fork(after_in_child=USER_MODULE._at_fork_reinit)  # type: ignore[attr-defined]
_SMALL = 2**14
"""Bytes of a tensor that is saved beforehand."""
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device)
_SHARED = (
    *(types.ModuleType, type(threading.Lock()), type(threading.RLock())),
    torch.jit.ScriptFunction,
)
_LIBRARIES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "unilens",
    "builtins",
    "typing",
    "abc",
)


class CopyError(UnilensError):
    """A model of which no private copy can be made."""


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
            kept = list(_reachable(model))
            cache = _tensor_memo(model, kept, own_weights)
            functions = _copied_functions(kept, cache)
            for part in model.modules():
                if (inner := unwrapped(part)) is not part:
                    cache[id(part)] = copy.deepcopy(inner, cache)
            made = copy.deepcopy(model, cache)
            for old, new in functions:
                _fill(old, new, cache)
            own = {id(part) for part in model.modules()}
            for part in made.modules():
                if id(part) not in own:
                    _retarget(vars(part), cache)
    except Exception as error:  # a user's module can hold anything: locks, streams, handles
        raise CopyError(
            f"expected a model that copy.deepcopy can copy, got {type(error).__name__}: "
            f"{first_line(error)}; {_remedy(model)}"
        ) from error
    if any(id(part) in own for part in made.modules()):
        raise CopyError(
            "expected a model that copy.deepcopy can copy, but the copy still holds modules of the "
            "model itself; mend its __deepcopy__"
        )
    for part in made.modules():
        _retarget(vars(part), cache)
    for value in made.parameters():  # those of TorchScript come with a graph
        value.detach_().requires_grad_(False)
    return made


def _remedy(model: nn.Module) -> str:
    wrappers = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    if any(isinstance(part, wrappers) for part in model.modules()):
        return "pass the module inside the wrapper, its .module"
    return "take out of it what cannot be copied"


def _tensor_memo(model: nn.Module, kept: list[Any], own_weights: bool) -> dict[int, Any]:
    """Return what stands for the model's tensors in a copy, by their ids."""
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
    """Return the functions that keep something, each with a copy that keeps nothing yet."""
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
    """Return whether a function keeps something of its own: in cells, defaults or attributes."""
    kept = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return bool(function.__closure__) or not all(isinstance(value, _ATOMS) for value in kept)


def _fill(old: types.FunctionType, new: types.FunctionType, cache: dict[int, Any]) -> None:
    """Give a copied function copies of what the function encloses and keeps."""
    for cell, filled in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
        content = _content(cell)
        if content is not _EMPTY and _content(filled) is _EMPTY:
            filled.cell_contents = _copied(content, cache)
    new.__defaults__ = copy.deepcopy(old.__defaults__, cache)
    new.__kwdefaults__ = copy.deepcopy(old.__kwdefaults__, cache)
    new.__dict__.update(copy.deepcopy(vars(old), cache))
    new.__qualname__, new.__doc__ = old.__qualname__, old.__doc__


_EMPTY = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


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
            own: Any = value
            args, words = list(own.args), dict(own.keywords)
            _retarget(args, cache)
            _retarget(words, cache)
            own.__setstate__((value.func, tuple(args), words, vars(value)))
        elif isinstance(value, (dict, list)) and value:
            _retarget(value, cache)


def _reachable(root: object) -> Iterator[Any]:
    """Yield what a module keeps, and what that keeps: containers, functions, objects, tensors."""
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _ATOMS) or id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        waiting += _kept_by(value)


def _kept_by(value: Any) -> list[Any]:
    """Return what an object keeps, one level down."""
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
    found: list[Any] = [kept] if isinstance(kept, dict) and kept else []
    found += [getattr(value, name) for name in _slots(value)]
    if isinstance(value, types.FunctionType):
        cells = value.__closure__ or ()
        contents = [one for one in map(_content, cells) if one is not _EMPTY]
        found += [value.__defaults__, value.__kwdefaults__, *cells, *contents]
    return found


class Guard:
    """Puts back, when a block ends, what the block changed in what a model keeps.

    That is: the values of its tensors and arrays (bitwise, those written through `.data` too),
    their `.grad` and `.requires_grad`, attributes and slots, the content of dictionaries, lists and
    sets, the states of random generators; what hooks and closures enclose; and what the model's
    own code names of its classes, modules and globals, by way of other functions too.

    Attributes:
        changed: whether the block changed what the model itself keeps.
        changed_outside: whether it changed what lies outside of the model.
        wrote_tensors: whether it wrote into a tensor.
        scripted: whether TorchScript is in the model, which does not run under a dispatch mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.changed = self.changed_outside = self.wrote_tensors = False
        own = list(_reachable(model))
        outside, self._bindings = _outside(own)
        seen = {id(value) for value in own}
        around = [value for one in outside for value in _reachable(one) if id(value) not in seen]
        self._tensors = [value for value in (*own, *around) if isinstance(value, Tensor)]
        self._leaves = [value for value in self._tensors if value.is_leaf]
        self._tensors += [value.grad for value in self._leaves if value.grad is not None]
        self._own = [value for value in own if _snapshot_of(value) is not None]
        self._around = [value for value in around if _snapshot_of(value) is not None]
        self.scripted = any(isinstance(value, torch.jit.ScriptModule) for value in own)

    def __enter__(self) -> Self:
        self._before, self._before_around = (
            [cast(_Snapshot, _snapshot_of(value)) for value in values]
            for values in (self._own, self._around)
        )
        self._bound = [binding.read() for binding in self._bindings]
        self._aliases = [_alias(value) for value in self._tensors]
        self._grads = [(value.requires_grad, value.grad) for value in self._leaves]
        self._watch = _WriteWatch(self._tensors, everything=self.scripted)
        if not self.scripted:  # a mode takes numbers for tensors in it
            self._watch.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if not self.scripted:
            self._watch.__exit__(*error)
        self.wrote_tensors = self._watch.restore()
        for value, alias in zip(self._tensors, self._aliases, strict=True):
            if alias is not None and _moved(value, alias):
                value.data = alias
                self.wrote_tensors = True
        self.changed = any([self.wrote_tensors, *(one.restore() for one in self._before)])
        for value, (required, grad) in zip(self._leaves, self._grads, strict=True):
            if value.requires_grad != required or value.grad is not grad:
                value.requires_grad_(required).grad = grad
                self.changed = True
        pairs = zip(self._bindings, self._bound, strict=True)
        self.changed_outside = any(
            [
                *(one.restore() for one in self._before_around),
                *(binding.restore(before) for binding, before in pairs),
            ]
        )


def _alias(value: Tensor) -> Tensor | None:
    plain = type(value) in (Tensor, nn.Parameter, nn.Buffer) and value.layout == torch.strided
    return value.detach() if plain and not value.is_inference() else None


def _moved(value: Tensor, alias: Tensor) -> bool:
    return value.data_ptr() != alias.data_ptr() or value.shape != alias.shape


class _Snapshot(NamedTuple):
    """What something held, how to tell whether it still does, and how to put it back."""

    before: Any
    same: Callable[[Any], bool]
    put_back: Callable[[Any], object]

    def restore(self) -> bool:
        """Put it back where it has changed, and return whether it had."""
        if self.same(self.before):
            return False
        self.put_back(self.before)
        return True


def _snapshot_of(value: Any) -> _Snapshot | None:
    """Return a snapshot of something that a pass can change; None of all else."""
    if isinstance(value, dict):
        return _Snapshot(dict(value), partial(_same_items, value), partial(_refill, value))
    if isinstance(value, (list, deque)):
        return _Snapshot(list(value), partial(_same_values, value), partial(_refill, value))
    if isinstance(value, set):
        return _Snapshot(set(value), partial(set.__eq__, value), partial(_refill, value))
    if isinstance(value, bytearray):
        return _Snapshot(bytes(value), value.__eq__, partial(value.__setitem__, slice(None)))
    if isinstance(value, numpy.ndarray):
        return _Snapshot(value.copy(), partial(_same_array, value), partial(numpy.copyto, value))
    if isinstance(value, torch.Generator):
        return _Snapshot(
            value.get_state(), lambda state: torch.equal(value.get_state(), state), value.set_state
        )
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return _Snapshot(
            bits.state, lambda state: bool(bits.state == state), partial(setattr, bits, "state")
        )
    if isinstance(value, types.CellType):
        return _Snapshot(
            _content(value), lambda held: _content(value) is held, partial(_set_cell, value)
        )
    names = _slots(value)
    if not names:
        return None
    held = {name: getattr(value, name) for name in names}
    return _Snapshot(held, partial(_same_slots, value), partial(_set_slots, value))


def _set_cell(cell: types.CellType, content: Any) -> None:
    if content is _EMPTY:
        del cell.cell_contents
    else:
        cell.cell_contents = content


def _base(value: dict[Any, Any]) -> Any:
    """Return the type whose methods change a dictionary, whatever its own class makes of them."""
    return OrderedDict if isinstance(value, OrderedDict) else dict


def _same_items(value: dict[Any, Any], before: dict[Any, Any]) -> bool:
    if len(value) != len(before):
        return False
    pairs = zip(_base(value).items(value), before.items(), strict=True)
    return all(key is old and kept is was for (key, kept), (old, was) in pairs)


def _same_values(value: Any, before: list[Any]) -> bool:
    if len(value) != len(before):
        return False
    return all(one is other for one, other in zip(value, before, strict=True))


def _same_array(value: Any, before: Any) -> bool:
    return bool(value.tobytes() == before.tobytes())


def _refill(value: Any, before: Any) -> None:
    if isinstance(value, dict):
        _base(value).clear(value)
        _base(value).update(value, before)
        return
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(before)


def _slots(value: Any) -> list[str]:
    """Return the slots of an object of the user's that have values."""
    kind = type(value)
    if _of_library(kind) or kind.__module__ == "builtins":
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


def _same_slots(value: Any, before: Mapping[str, Any]) -> bool:
    return all(getattr(value, name, None) is kept for name, kept in before.items())


def _set_slots(value: Any, before: Mapping[str, Any]) -> None:
    for name, kept in before.items():
        object.__setattr__(value, name, kept)


class _Binding(NamedTuple):
    """A name outside of the model that its code can bind anew: of a class, a module or globals."""

    owner: Any
    name: str

    def read(self) -> Any:
        """Return what the name is bound to."""
        held = self.owner if isinstance(self.owner, dict) else vars(self.owner)
        return held.get(self.name, _EMPTY)

    def restore(self, before: Any) -> bool:
        """Bind the name as before, and return whether it had changed."""
        if self.read() is before:
            return False
        if isinstance(self.owner, dict):
            if before is _EMPTY:
                del self.owner[self.name]
            else:
                self.owner[self.name] = before
        elif before is _EMPTY:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, before)
        return True


def _outside(kept: list[Any]) -> tuple[list[Any], list[_Binding]]:
    """Return what the model's own code names outside of the model, and the names that it binds.

    Functions of the user's that it names are followed, and the attributes that it sets are looked
    for in the user's modules and classes that it names.
    """
    found: list[Any] = []
    bindings: dict[tuple[int, str], _Binding] = {}
    own_kinds = {type(value) for value in kept if isinstance(value, nn.Module)}
    own_kinds = {kind for kind in own_kinds if not _of_library(kind)}
    waiting: list[Any] = list({base for value in kept for base in type(value).__mro__})
    waiting += [getattr(value, "__func__", value) for value in kept]
    seen: set[int] = set()
    while waiting:
        code = waiting.pop()
        if not isinstance(code, (type, types.FunctionType)) or id(code) in seen:
            continue
        seen.add(id(code))
        if _of_library(code):
            continue
        if isinstance(code, type):
            waiting += [getattr(one, "__func__", one) for one in vars(code).values()]
            found += [one for one in vars(code).values() if _is_mutable(one)]
            continue
        names, bound, attributes = _names(code.__code__)
        known = [code.__globals__[name] for name in names if name in code.__globals__]
        known += [sys.modules[name] for name in names if name in sys.modules]
        waiting += known
        found += [value for value in known if _is_mutable(value)]
        pairs = [(code.__globals__, name) for name in bound]
        owners = [*own_kinds, *(value for value in known if _has_users_attributes(value))]
        pairs += [(owner, name) for owner in owners for name in attributes]
        bindings |= {(id(owner), name): _Binding(owner, name) for owner, name in pairs}
    return found, list(bindings.values())


@cache
def _names(code: types.CodeType) -> tuple[set[str], set[str], set[str]]:
    """Return the names that code uses, the globals that it binds, the attributes that it sets."""
    codes = list(_codes(code))
    steps = [(step.opname, step.argval) for one in codes for step in dis.get_instructions(one)]
    bound = {name for kind, name in steps if kind in ("STORE_GLOBAL", "DELETE_GLOBAL")}
    attributes = {name for kind, name in steps if kind in ("STORE_ATTR", "DELETE_ATTR")}
    names = {name for one in codes for name in one.co_names}
    texts = {value for one in codes for value in one.co_consts if isinstance(value, str)}
    if not names.isdisjoint(("setattr", "delattr")):
        attributes |= texts
    if "globals" in names:
        bound |= texts
    return names, bound, attributes


def _has_users_attributes(value: Any) -> bool:
    """Return whether a global is a module or a class of the user's."""
    if isinstance(value, types.ModuleType):
        return not _is_library(value.__name__)
    return isinstance(value, type) and not _of_library(value)


def _is_mutable(value: Any) -> bool:
    """Return whether a value of a class or module is a container, or an object of the user's."""
    if isinstance(value, (dict, list, set, deque, Tensor, numpy.ndarray, bytearray)):
        return True
    if isinstance(value, (torch.Generator, numpy.random.Generator)):
        return True
    code = isinstance(value, (type, types.ModuleType, types.FunctionType))
    if isinstance(value, (types.SimpleNamespace, UserDict, UserList)):
        return True
    named = hasattr(value, "__dict__") or bool(_slots(value))
    return not code and named and not _of_library(type(value))


def _of_library(what: Any) -> bool:
    """Return whether a class or function is of torch, an installed package, or Python itself."""
    return _is_library(what.__module__ or "builtins")


@cache
def _is_library(name: str) -> bool:
    root = name.partition(".")[0]
    if root in _LIBRARIES or (root in sys.stdlib_module_names and root != "__main__"):
        return True
    return "site-packages" in (getattr(sys.modules.get(name), "__file__", None) or "")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


class _WriteWatch(TorchDispatchMode):
    """Saves the values of watched tensors before an operation writes into them.

    It sees every operation of this thread, also those on `.data`.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return false: skipping would import all of torch's compiler."""
        return False

    def __init__(self, tensors: list[Tensor], *, everything: bool) -> None:
        super().__init__()
        self._watched = {}
        for value in tensors:
            pointer = pointer_of(value)
            if pointer:
                self._watched[pointer] = value.detach().untyped_storage()
        # Writes through NumPy and in TorchScript are not seen: what is small is saved at once.
        self._saved = {
            pointer: storage.clone()
            for pointer, storage in self._watched.items()
            if everything or (storage.device.type == "cpu" and storage.nbytes() <= _SMALL)
        }

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        statistics = "batch_norm" in str(func)  # written too, but no schema says so
        if schema is not None and (schema.is_mutable or statistics):
            for position, argument in enumerate(schema.arguments):
                written = argument.alias_info is not None and argument.alias_info.is_write
                if written or (statistics and argument.name.startswith("running_")):
                    given = args[position] if position < len(args) else kwargs.get(argument.name)
                    self._save(given)
        return func(*args, **kwargs)

    def _save(self, given: Any) -> None:
        for value in given if isinstance(given, (list, tuple)) else [given]:
            pointer = pointer_of(value) if isinstance(value, Tensor) else 0
            if pointer in self._watched and pointer not in self._saved:
                self._saved[pointer] = self._watched[pointer].clone()

    def restore(self) -> bool:
        """Put the saved values back, and return whether any had changed."""
        changed = False
        for pointer, before in self._saved.items():
            storage = self._watched[pointer]
            if not torch.equal(_bytes(storage), _bytes(before)):
                storage.copy_(before)
                changed = True
        return changed


def _bytes(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def pointer_of(value: Tensor) -> int:
    """Return where a tensor's storage lies; 0 for tensors without one of their own."""
    try:
        return int(value.untyped_storage().data_ptr())
    except (RuntimeError, NotImplementedError):
        return 0


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

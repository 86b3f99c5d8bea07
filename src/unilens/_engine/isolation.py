"""Private copies of a user's model, and a guard that puts back what a pass changes in one."""

from __future__ import annotations

import copy
import functools
import threading
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import UnilensError, first_line

USER_MODULE = threading.RLock()
"""Held while a user's own module runs, so that what is put back afterwards is what was there."""
_ATOMS = (str, bytes, int, float, complex, bool, type(None), type, torch.dtype, torch.device)
_SHARED = (types.ModuleType, type(threading.Lock()), type(threading.RLock()))
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


def private_copy(model: nn.Module, *, own_weights: bool = False) -> nn.Module:
    """Return a copy whose parameters are frozen and whose other state is its own.

    Functions that the model keeps (hooks, closures, partials, in containers too) are copied with
    what they enclose, so that the copy's write to the copy's. Weak references to a copied object
    refer to its copy.

    Args:
        model: any module; it is not changed.
        own_weights: whether parameters get storage of their own; otherwise they share the model's.

    Raises:
        UnilensError: something in the model cannot be copied.
    """
    try:
        with torch.inference_mode(False):
            kept = list(_reachable(model))
            memo = _tensor_memo(model, kept, own_weights)
            functions = _copied_functions(kept, memo)
            for part in model.modules():
                if (inner := unwrapped(part)) is not part:
                    memo[id(part)] = copy.deepcopy(inner, memo)
            made = copy.deepcopy(model, memo)
            for old, new in functions:
                _fill(old, new, memo)
    except Exception as error:  # a user's module can hold anything: locks, streams, handles
        raise UnilensError(
            f"expected a model that copy.deepcopy can copy, got {type(error).__name__}: "
            f"{first_line(error)}; take out of it what cannot be copied"
        ) from error
    own = {id(part) for part in model.modules()}
    if any(id(part) in own for part in made.modules()):
        raise UnilensError(
            "expected a model that copy.deepcopy can copy, but the copy still holds modules of the "
            "model itself; mend its __deepcopy__"
        )
    for part in made.modules():
        _retarget(vars(part), memo)
    for value in made.parameters():  # those of TorchScript come with a graph
        value.detach_().requires_grad_(False)
    return made


def _tensor_memo(model: nn.Module, kept: list[Any], own_weights: bool) -> dict[int, Any]:
    """Return what stands for the model's tensors in a copy, by their ids."""
    memo: dict[int, Any] = {}
    for value in model.parameters():
        shared = value.is_inference() or own_weights
        data = value.detach().clone() if shared else value.detach()
        memo[id(value)] = nn.Parameter(data, requires_grad=False)
    for value in kept:
        if isinstance(value, Tensor) and id(value) not in memo and not value.is_leaf:
            memo[id(value)] = value.detach().clone()  # from an earlier pass, with its graph
        elif isinstance(value, _SHARED):
            memo[id(value)] = value
    return memo


_Pair = tuple[types.FunctionType, types.FunctionType]


def _copied_functions(kept: list[Any], memo: dict[int, Any]) -> list[_Pair]:
    """Return the functions that keep something, each with a copy that keeps nothing yet."""
    pairs: list[_Pair] = []
    for function in kept:
        if isinstance(function, types.FunctionType) and _encloses(function):
            cells = tuple(types.CellType() for _ in function.__closure__ or ())
            made = types.FunctionType(
                function.__code__, function.__globals__, function.__name__, None, cells
            )
            memo[id(function)] = made
            pairs.append((function, made))
    return pairs


def _encloses(function: types.FunctionType) -> bool:
    """Return whether a function keeps something of its own: in cells, defaults or attributes."""
    kept = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    return bool(function.__closure__) or not all(isinstance(value, _ATOMS) for value in kept)


def _fill(old: types.FunctionType, new: types.FunctionType, memo: dict[int, Any]) -> None:
    """Give a copied function copies of what the function encloses and keeps."""
    for cell, filled in zip(old.__closure__ or (), new.__closure__ or (), strict=True):
        content = _content(cell)
        if content is not _EMPTY:
            filled.cell_contents = _copied(content, memo)
    new.__defaults__ = copy.deepcopy(old.__defaults__, memo)
    new.__kwdefaults__ = copy.deepcopy(old.__kwdefaults__, memo)
    new.__dict__.update(copy.deepcopy(vars(old), memo))
    new.__qualname__, new.__doc__ = old.__qualname__, old.__doc__


_EMPTY = object()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _EMPTY


def _copied(value: Any, memo: dict[int, Any]) -> Any:
    """Return a copy of what a function encloses, or the thing itself where it has none.

    Where that is wrong, the copied model writes into the user's objects or gives other outputs;
    both are looked for before it is used.
    """
    if isinstance(value, weakref.ref):
        return _retargeted(value, memo)
    try:
        return copy.deepcopy(value, memo)
    except Exception:
        return value


def _retargeted(reference: weakref.ref[Any], memo: Mapping[int, Any]) -> weakref.ref[Any]:
    target = memo.get(id(reference()))
    return reference if target is None else weakref.ref(target)


def _retarget(container: Any, memo: Mapping[int, Any]) -> None:
    """Point the weak references in a dictionary or list, and in those inside it, to the copies."""
    items = list(container.items()) if isinstance(container, dict) else list(enumerate(container))
    for key, value in items:
        if isinstance(value, weakref.ref):
            container[key] = _retargeted(value, memo)
        elif type(value) in (dict, list) and value:
            _retarget(value, memo)


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
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(value)
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, torch.jit.ScriptModule):  # whose tensors are none of its attributes
        return [*value.parameters(), *value.buffers()]
    kept = getattr(value, "__dict__", None)
    found: list[Any] = [kept] if isinstance(kept, dict) and kept else []
    if isinstance(value, types.FunctionType):
        cells = (_content(cell) for cell in value.__closure__ or ())
        found += [value.__defaults__, value.__kwdefaults__, *cells]
    return found


class Guard:
    """Puts back, when a block ends, what the block changed in what a model keeps.

    That is: the values of its tensors (bitwise, those written through `.data` too), their `.grad`
    and `.requires_grad`, attributes, and the content of dictionaries, lists and sets; what hooks
    and closures enclose; and mutable values of the classes and globals that the model's own code
    names.

    Attributes:
        changed: whether the block changed any of these.
        wrote_tensors: whether it wrote into a tensor.
        scripted: whether TorchScript is in the model, which does not run under a dispatch mode.
    """

    def __init__(self, model: nn.Module) -> None:
        self.changed = self.wrote_tensors = False
        kept = list(_reachable(model))
        for outside in _outside(kept):
            kept += _reachable(outside)
        self._tensors = [value for value in kept if isinstance(value, Tensor)]
        self._leaves = [value for value in self._tensors if value.is_leaf]
        self._tensors += [value.grad for value in self._leaves if value.grad is not None]
        self._containers = [value for value in kept if type(value) in _COPIERS]
        self.scripted = any(isinstance(value, torch.jit.ScriptModule) for value in kept)

    def __enter__(self) -> Self:
        self._before = [_COPIERS[type(value)](value) for value in self._containers]
        self._aliases = [_alias(value) for value in self._tensors]
        self._grads = [(value.requires_grad, value.grad) for value in self._leaves]
        self._watch = _WriteWatch(self._tensors)
        if self.scripted:  # a mode takes numbers for tensors in it
            self._watch.save_all()
        else:
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
        self.changed = self.wrote_tensors
        for value, (required, grad) in zip(self._leaves, self._grads, strict=True):
            if value.requires_grad != required or value.grad is not grad:
                value.requires_grad_(required).grad = grad
                self.changed = True
        for value, before in zip(self._containers, self._before, strict=True):
            if not _same(value, before):
                _put_back(value, before)
                self.changed = True


def _alias(value: Tensor) -> Tensor | None:
    plain = type(value) in (Tensor, nn.Parameter, nn.Buffer) and value.layout == torch.strided
    return value.detach() if plain and not value.is_inference() else None


def _moved(value: Tensor, alias: Tensor) -> bool:
    return value.data_ptr() != alias.data_ptr() or value.shape != alias.shape


_COPIERS: dict[type, Callable[[Any], Any]] = {
    **dict.fromkeys((dict, OrderedDict, defaultdict, Counter), dict),
    **dict.fromkeys((list, deque), list),
    set: set,
}


def _same(value: Any, before: Any) -> bool:
    if len(value) != len(before):
        return False
    if isinstance(value, dict):
        return all(
            key is old and value[key] is kept
            for key, (old, kept) in zip(value, before.items(), strict=True)
        )
    if isinstance(value, set):
        return bool(value == before)
    return all(one is other for one, other in zip(value, before, strict=True))


def _put_back(value: Any, before: Any) -> None:
    value.clear()
    (value.extend if isinstance(value, (list, deque)) else value.update)(before)


def _outside(kept: list[Any]) -> list[Any]:
    """Return mutable values that the model's code names, in its classes and its globals."""
    found: list[Any] = []
    for kind in {type(value) for value in kept if isinstance(value, nn.Module)}:
        for base in kind.__mro__:
            if not _of_library(base):
                found += [value for value in vars(base).values() if _is_mutable(value)]
                for value in vars(base).values():
                    found += _named(value)
    for function in kept:
        found += _named(getattr(function, "__func__", function))
    return found


def _named(function: Any) -> list[Any]:
    """Return the mutable globals that a function's code names."""
    if not isinstance(function, types.FunctionType) or _of_library(function):
        return []
    known = function.__globals__
    names = (name for code in _codes(function.__code__) for name in code.co_names)
    return [known[name] for name in names if _is_mutable(known.get(name))]


def _is_mutable(value: Any) -> bool:
    """Return whether a value of a class or module is a container, or an object of the user's."""
    if type(value) in _COPIERS:
        return True
    code = isinstance(value, (type, types.ModuleType, types.FunctionType))
    return not code and hasattr(value, "__dict__") and not _of_library(type(value))


def _of_library(what: Any) -> bool:
    return (what.__module__ or "").partition(".")[0] in _LIBRARIES


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

    def __init__(self, tensors: list[Tensor]) -> None:
        super().__init__()
        self._watched = {}
        for value in tensors:
            pointer = pointer_of(value)
            if pointer:
                self._watched[pointer] = value.detach().untyped_storage()
        self._saved: dict[int, torch.UntypedStorage] = {}

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

    def save_all(self) -> None:
        """Save every watched tensor: what is run without this mode may write into any."""
        self._saved = {pointer: storage.clone() for pointer, storage in self._watched.items()}

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

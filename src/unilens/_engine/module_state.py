"""Whether a module is what it was when copies of it were made, in code, attributes and weights."""

from __future__ import annotations

import contextvars
import functools
import operator
import pathlib
import re
import threading
import types
import weakref
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from .bindings import state_outside
from .folding import FoldedMean, folded_weights
from .object_graph import reachable, slots_of
from .snapshots import Snapshot, snapshot_of

_KNOWN = frozenset(
    (
        *(dict, OrderedDict, defaultdict, Counter, list, tuple, set, frozenset, deque, bytearray),
        *(range, slice, re.Pattern, weakref.ReferenceType, torch.Size, torch.layout),
        *(torch.memory_format, torch.Generator, type(threading.Lock()), type(threading.RLock())),
        *(types.FunctionType, types.MethodType, types.ModuleType, types.CellType),
        *(functools.partial, Tensor, nn.Parameter, nn.Buffer, FoldedMean, numpy.ndarray),
        *(pathlib.PosixPath, pathlib.WindowsPath, types.MethodDescriptorType),
    )
)
"""Types all of whose content is compared, or that never change."""
_GLOBAL_HOOKS = [
    hooks
    for name, hooks in vars(nn.modules.module).items()
    if name.startswith("_global_") and isinstance(hooks, dict)
]
_OF_NUMPY = (torch.float32, torch.float64, torch.int64, torch.bool)
_INTEGERS = {1: torch.uint8, 2: torch.int16}


class ModuleState:
    """What the preparation of a module depends on, to be compared with what it is later.

    It refers to everything in the module, but not to the module itself, which can be freed.

    Args:
        model: the user's module, or a copy of it.

    Attributes:
        known: whether all of its state can be compared: it holds no object of a C extension, no
            container of a class of its own, and nothing that refers to the module.
    """

    def __init__(self, model: nn.Module) -> None:
        inside = list(reachable(vars(model)))
        outside = state_outside([model, *inside])
        around = [value for root in outside.mutable for value in reachable(root)]
        self.known = not (
            isinstance(model, torch.jit.ScriptModule)
            or any(value is model for value in (*inside, *around))
            or any(map(_is_opaque, inside))
            or any(isinstance(one.read(), contextvars.ContextVar) for one in outside.read)
        )
        if not self.known:
            inside, around, outside = [], [], state_outside([])
        self._attributes, self._kind = vars(model) if self.known else {}, type(model)
        compared = [*inside, *around, *_GLOBAL_HOOKS]
        self._empty = list(filter(_is_empty, compared))
        self._snapshots = list[Snapshot]()
        for value in compared:
            if not _is_empty(value) and (snapshot := snapshot_of(value)):
                self._snapshots.append(snapshot)
        self._tensors = [value for value in inside if isinstance(value, Tensor)]
        self._layouts = list(map(_layout_of, self._tensors))
        self._objects = [value for value in inside if type(getattr(value, "__dict__", 0)) is dict]
        self._kinds = list(map(type, self._objects))
        self._dictionaries = [value.__dict__ for value in self._objects]
        kinds = {base for kind in (self._kind, *self._kinds) for base in kind.__mro__}
        self._members = [(kind, list(vars(kind).values())) for kind in kinds if self.known]
        own = [value for value in inside if isinstance(value, types.FunctionType)]
        self._functions = [(one, _code_of(one)) for one in {*own, *outside.functions}]
        self._read = [(binding, _held(binding.read())) for binding in outside.read]
        self._unshared, self._sums = set[int](), list[int]()

    def note_values(self, copied: nn.Module) -> None:
        """Note the values of the tensors that a copy does not read from the module."""
        self.known = self.known and self._current_sums() == self._sums  # else an older copy differs
        unused = {id(value) for value in folded_weights(copied)}
        shared = Counter(
            _place_of(value)
            for value in reachable(copied)
            if isinstance(value, Tensor) and id(value) not in unused
        )
        places = list(map(_place_of, self._tensors))
        own = Counter(places)  # a tensor and a view of it may have one place, and a copy of one
        self._unshared |= {
            number for number, place in enumerate(places) if own[place] > shared[place]
        }
        self._sums = self._current_sums()

    def is_that_of(self, model: nn.Module) -> bool:
        """Return whether a module is as it was: its code, what it holds, and the values of that.

        Tensors are compared by identity, place and version; those whose values a copy holds also
        by a checksum, which sees writes through `.data` and NumPy.
        """
        return (
            self.known
            and vars(model) is self._attributes
            and type(model) is self._kind
            and not any(self._empty)
            and all(snapshot.same(snapshot.before) for snapshot in self._snapshots)
            and all(map(operator.is_, map(type, self._objects), self._kinds))
            and all(map(operator.is_, map(_attributes_of, self._objects), self._dictionaries))
            and all(map(_has_members, self._members))
            and all(_code_of(one) == code for one, code in self._functions)
            and all(_is_held(binding.read(), before) for binding, before in self._read)
            and list(map(_layout_of, self._tensors)) == self._layouts
            and self._current_sums() == self._sums
        )

    def _current_sums(self) -> list[int]:
        return _checksums([self._tensors[number] for number in sorted(self._unshared)])


_attributes_of = operator.attrgetter("__dict__")


def _has_members(pair: tuple[type, list[Any]]) -> bool:
    """Return whether a class has the members that it had."""
    members = vars(pair[0]).values()
    return len(members) == len(pair[1]) and all(map(operator.is_, members, pair[1]))


def _code_of(function: types.FunctionType) -> tuple[Any, ...]:
    """Return what a function runs, and its defaults by identity."""
    return function.__code__, id(function.__defaults__), id(function.__kwdefaults__)


def _held(value: Any) -> Any:
    """Return a weak reference to a value, or the value where it cannot have one.

    A global can be the module itself.
    """
    try:
        return weakref.ref(value)
    except TypeError:
        return value


def _is_held(value: Any, held: Any) -> bool:
    return value is held or (type(held) is weakref.ReferenceType and held() is value)


def _is_opaque(value: Any) -> bool:
    """Return whether an object may keep what neither its attributes, slots nor items show."""
    kind = type(value)
    if kind in (Tensor, nn.Parameter, nn.Buffer, FoldedMean):
        strided = value.layout == torch.strided and not value.is_quantized
        return not strided or not _has_storage(value)
    if kind is numpy.ndarray:
        return bool(value.dtype.hasobject)
    if kind is types.BuiltinFunctionType:
        return not isinstance(value.__self__, (type(None), types.ModuleType, type))
    return kind not in _KNOWN and not _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Return whether an object has attributes and slots alone, all of them seen."""
    kind = type(value)
    slots = {
        name
        for base in kind.__mro__
        for names in [vars(base).get("__slots__", ())]
        for name in ((names,) if isinstance(names, str) else names)
    } - {"__dict__", "__weakref__"}
    if isinstance(value, torch.jit.ScriptModule) or (slots and slots != set(slots_of(value))):
        return False
    words = len(slots) + 2  # attributes, weak references
    return kind.__basicsize__ <= object.__basicsize__ + words * tuple.__itemsize__


def _has_storage(value: Tensor) -> bool:
    try:
        return value.numel() == 0 or value.untyped_storage().data_ptr() != 0
    except (RuntimeError, NotImplementedError):
        return False


def _is_empty(value: Any) -> bool:
    """Return whether an object is an empty dictionary, as those of hooks mostly are."""
    return type(value) in (dict, OrderedDict) and not value


def _layout_of(value: Tensor) -> tuple[Any, ...]:
    version = 0 if value.is_inference() else value._version
    return version, *_place_of(value)


def _place_of(value: Tensor) -> tuple[Any, ...]:
    """Return where and how a tensor lies in memory."""
    return value.data_ptr(), value.dtype, value.shape, value.stride()


@torch.no_grad()
def _checksums(tensors: Sequence[Tensor]) -> list[int]:
    """Return numbers that differ, but for one chance in 2^32, where the tensors' bits differ."""
    sums, elsewhere = list[int](), dict[torch.device, list[Tensor]]()
    for value in tensors:
        if value.device.type == "cpu":
            plain = value.is_contiguous() and value.dtype in _OF_NUMPY and not value.is_neg()
            array = value.detach() if plain else _raw(value).view(torch.uint8)
            sums.append(zlib.crc32(array.numpy().data))
        else:
            elsewhere.setdefault(value.device, []).append(_weighted_sum(_raw(value)))
    return sums + [int(one) for many in elsewhere.values() for one in torch.stack(many).tolist()]


def _raw(value: Tensor) -> Tensor:
    """Return the values of a tensor `(n,)`, contiguous; an expanded one has one value."""
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    for dim, stride in enumerate(value.stride()):
        if stride == 0 and value.shape[dim] > 1:
            value = value.narrow(dim, 0, 1)
    return value.resolve_neg().contiguous().view(-1)


def _weighted_sum(raw: Tensor) -> Tensor:
    """Return a sum of a tensor's 32-bit words, each times a number of its place, mod 2^64."""
    words = raw.view(_INTEGERS.get(raw.element_size(), torch.int32)).long()
    weights = _weights(words.device)
    parts = [(part * weights[: len(part)]).sum() for part in words.split(len(weights))]
    return (torch.stack(parts) * weights[: len(parts)]).sum() if parts else words.sum()


@functools.cache
def _weights(device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randint(2**62, (2**18,), generator=generator) + 1).to(device)

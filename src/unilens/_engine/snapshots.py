"""Snapshots of what a pass can change: containers, arrays, generators, slots, and tensors."""

from __future__ import annotations

import operator
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .memory import pointer_of
from .object_graph import EMPTY, cell_content, slots_of

_SMALL = 2**14
"""Bytes of a tensor that is saved beforehand."""


class Snapshot(NamedTuple):
    """The content of an object, with its comparison and its restoration."""

    before: Any
    same: Callable[[Any], bool]
    put_back: Callable[[Any], object]

    def restore(self) -> bool:
        """Restore the content where it has changed, and return whether it had."""
        if self.same(self.before):
            return False
        self.put_back(self.before)
        return True


def snapshot_of(value: Any) -> Snapshot | None:
    """Return a snapshot of an object that a pass can change; None for others."""
    if isinstance(value, dict):
        return Snapshot(dict(value), partial(_same_items, value), partial(_refill, value))
    if isinstance(value, (list, deque)):
        return Snapshot(list(value), partial(_same_values, value), partial(_refill, value))
    if isinstance(value, set):
        return Snapshot(set(value), partial(set.__eq__, value), partial(_refill, value))
    if isinstance(value, bytearray):
        return Snapshot(bytes(value), value.__eq__, partial(value.__setitem__, slice(None)))
    if isinstance(value, numpy.ndarray):
        return Snapshot(value.copy(), partial(_same_array, value), partial(numpy.copyto, value))
    if isinstance(value, torch.Generator):
        return Snapshot(
            value.get_state(), lambda state: torch.equal(value.get_state(), state), value.set_state
        )
    if isinstance(value, numpy.random.Generator):
        bits = value.bit_generator
        return Snapshot(  # states may hold arrays
            bits.state,
            lambda state: repr(bits.state) == repr(state),
            partial(setattr, bits, "state"),
        )
    if isinstance(value, types.CellType):
        return Snapshot(
            cell_content(value),
            lambda content: cell_content(value) is content,
            partial(_set_cell, value),
        )
    names = slots_of(value)
    if not names:
        return None
    content = {name: getattr(value, name) for name in names}
    return Snapshot(content, partial(_same_slots, value), partial(_set_slots, value))


def _set_cell(cell: types.CellType, content: Any) -> None:
    if content is EMPTY:
        del cell.cell_contents
    else:
        cell.cell_contents = content


def _base(value: dict[Any, Any]) -> Any:
    """Return the type whose methods change a dictionary, past overrides in its own class."""
    return OrderedDict if isinstance(value, OrderedDict) else dict


def _same_items(value: dict[Any, Any], before: dict[Any, Any]) -> bool:
    if len(value) != len(before):
        return False
    kind = _base(value)
    return all(map(operator.is_, kind.values(value), before.values())) and all(
        map(operator.is_, kind.keys(value), before.keys())
    )


def _same_values(value: Any, before: list[Any]) -> bool:
    if len(value) != len(before):
        return False
    return all(map(operator.is_, value, before))


def _same_array(value: Any, before: Any) -> bool:
    return bool(value.tobytes() == before.tobytes())


def _refill(value: Any, before: Any) -> None:
    if isinstance(value, dict):
        _refill_items(value, before)
        return
    value.clear()
    (value.update if isinstance(value, set) else value.extend)(before)


def _refill_items(value: dict[Any, Any], before: dict[Any, Any]) -> None:
    """Put items back key by key: another thread may read them, as those of a module's attributes.

    Only where their order has changed as well is the dictionary emptied first.
    """
    methods = _base(value)
    for key in [key for key in methods.keys(value) if key not in before]:
        methods.pop(value, key)
    for key, old in before.items():
        if methods.get(value, key, EMPTY) is not old:
            methods.__setitem__(value, key, old)
    if not _same_items(value, before):
        methods.clear(value)
        methods.update(value, before)


def _same_slots(value: Any, before: Mapping[str, Any]) -> bool:
    return all(getattr(value, name, None) is kept for name, kept in before.items())


def _set_slots(value: Any, before: Mapping[str, Any]) -> None:
    for name, kept in before.items():
        object.__setattr__(value, name, kept)


class WriteWatch(TorchDispatchMode):
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

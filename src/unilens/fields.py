"""The tensors of an attribution under one flat set of names: chosen by input, moved, converted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor

from .arrays import Array, as_number, to_tensor
from .errors import UnilensError, require
from .trace import Trace

if TYPE_CHECKING:
    from .attribution import Attribution

A = TypeVar("A", bound="Attribution")
_GROUPS = ("record", "measured")
_STEPS_FIRST = ("trace.fraction", "trace.score", "trace.confidence")
"""What has the steps of the path in its first dimension, and the inputs in its second."""


def tensors_of(attribution: Attribution) -> dict[str, Tensor]:
    """Return every tensor by name: `values`, `trace.score`, `record.NAME`, `measured.NAME`."""
    found: dict[str, Tensor] = {}
    for field in dataclasses.fields(attribution):
        value = getattr(attribution, field.name)
        if isinstance(value, Tensor):
            found[field.name] = value
        elif isinstance(value, Trace):
            names = [one.name for one in dataclasses.fields(value)]
            found |= {f"{field.name}.{name}": getattr(value, name) for name in names}
        elif field.name in _GROUPS:
            found |= {f"{field.name}.{name}": entry for name, entry in value.items()}
    for name, value in found.items():
        require(
            isinstance(value, Tensor),
            f"expected {name} to be a tensor with one entry per input, got {type(value).__name__}",
        )
    return found


def fields_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of an attribution whose tensors have these names; see `tensors_of`."""
    fields: dict[str, Any] = {}
    for name, value in tensors.items():
        field, dot, entry = name.partition(".")
        if dot:
            fields.setdefault(field, {})[entry] = value
        else:
            fields[field] = value
    if "trace" in fields:
        fields["trace"] = Trace(**fields["trace"])
    return fields


def map_tensors(attribution: A, change: Callable[[Tensor], Tensor]) -> A:
    """Return a copy with every tensor changed by a function."""
    changed = {name: change(value) for name, value in tensors_of(attribution).items()}
    return dataclasses.replace(attribution, **fields_of(changed))


def input_dimension(name: str) -> int:
    """Return the dimension of a tensor, by its name, that has one entry per input."""
    return 1 if name in _STEPS_FIRST else 0


def chosen(attribution: A, rows: Tensor) -> A:
    """Return the attribution of some inputs alone, in the order of their numbers `(m,)`."""
    mine = {}
    for name, value in tensors_of(attribution).items():
        dimension = input_dimension(name)
        require(
            value.shape[dimension : dimension + 1] == (len(attribution),),
            f"expected {name} to have one entry for each of {len(attribution)} inputs, got shape "
            f"{tuple(value.shape)}",
        )
        mine[name] = value.index_select(dimension, rows.to(value.device))
    return dataclasses.replace(attribution, **fields_of(mine))


def rows_of(index: object, count: int) -> Tensor:
    """Return the numbers `(m,)` of the inputs that an index means.

    Args:
        index: a number, a slice, a mask `(count,)`, or several numbers; negative ones count from
            the end.
        count: of inputs.
    """
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.long)
    index = as_number(index)
    if isinstance(index, int) and not isinstance(index, bool):
        index = [index]
    try:
        rows = torch.as_tensor(to_tensor("an index", index)).cpu()
    except (TypeError, ValueError, RuntimeError):
        rows = torch.zeros(())
    if rows.dtype == torch.bool and rows.shape == (count,):
        return rows.nonzero().flatten()
    whole = not (rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex())
    if rows.ndim != 1 or not (whole or not rows.numel()):
        came = f"{rows.dtype} of shape {tuple(rows.shape)}" if rows.ndim else type(index).__name__
        raise UnilensError(
            f"expected an index of inputs: a number, a slice, a mask of shape ({count},) or "
            f"several numbers, got {came}"
        )
    rows = rows.long()
    wrong = rows[(rows < -count) | (rows >= count)].tolist()
    require(
        not wrong,
        f"expected an index below {count}, the number of inputs, got {wrong[:1] and wrong[0]}",
    )
    return rows.where(rows >= 0, rows + count)


def moved(attribution: A, *where: object) -> A:
    """Return a copy whose tensors are on a device, and floating-point ones of a dtype.

    Args:
        attribution: what to move.
        where: a device, a floating-point dtype, or both.
    """
    dtypes = [one for one in where if isinstance(one, torch.dtype)]
    devices = [_device(one) for one in where if not isinstance(one, torch.dtype)]
    for dtype in dtypes:
        require(dtype.is_floating_point, f"expected a floating-point dtype, got {dtype}")

    def move(value: Tensor) -> Tensor:
        for one in [*devices, *(dtypes if value.is_floating_point() else [])]:
            value = value.to(cast(Any, one))
        return value

    try:
        return map_tensors(attribution, move)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UnilensError(
            f"could not move the attribution to {', '.join(map(str, where))}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _device(given: object) -> torch.device:
    try:
        return torch.device(cast(Any, given))
    except (RuntimeError, TypeError) as error:
        raise UnilensError(
            f"expected a device or a floating-point dtype, got {given!r}; write 'cpu', 'cuda' or "
            "torch.float64"
        ) from error


def to_numpy(values: Tensor) -> Array:
    """Return values as an array, without their graph; bfloat16, which NumPy lacks, as float32."""
    values = values.detach().cpu()
    known = values.dtype in (torch.float16, torch.float32, torch.float64)
    return cast(Array, (values if known else values.float()).numpy())

"""Access to the tensors of a result by flat names: select inputs, move, convert.

A result is a dataclass. The metadata of its fields say which hold tensors: `nested` another
dataclass of tensors, `tensors` a mapping; `input_dimension` is the dimension with one entry per
input, 0 by default.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .._validation.arrays import Array, as_number, to_tensor
from ..errors import UnilensError, require

A = TypeVar("A")


def tensors_of(result: Any) -> dict[str, Tensor]:
    """Return all tensors by name: `values`, `trace.score`, `record.NAME`, `measured.NAME`."""
    tensors: dict[str, Tensor] = {}
    for field in dataclasses.fields(result):
        value = getattr(result, field.name)
        if isinstance(value, Tensor):
            tensors[field.name] = value
        elif "nested" in field.metadata and value is not None:
            names = [nested.name for nested in dataclasses.fields(value)]
            tensors |= {f"{field.name}.{name}": getattr(value, name) for name in names}
        elif "tensors" in field.metadata:
            tensors |= {f"{field.name}.{name}": entry for name, entry in value.items()}
    for name, value in tensors.items():
        require(
            isinstance(value, Tensor),
            f"expected {name} to be a tensor with one entry per input, got {type(value).__name__}",
        )
    return tensors


def fields_of(kind: type, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of a result from its tensors by name; the inverse of `tensors_of`."""
    fields: dict[str, Any] = {}
    for name, value in tensors.items():
        field, dot, entry = name.partition(".")
        if dot:
            fields.setdefault(field, {})[entry] = value
        else:
            fields[field] = value
    for known in dataclasses.fields(kind):
        if known.name in fields and "nested" in known.metadata:
            fields[known.name] = known.metadata["nested"](**fields[known.name])
    return fields


def map_tensors(result: A, change: Callable[[Tensor], Tensor]) -> A:
    """Return a copy of the result with a function applied to each tensor."""
    changed = {name: change(value) for name, value in tensors_of(result).items()}
    return cast(A, dataclasses.replace(cast(Any, result), **fields_of(type(result), changed)))


def input_dimension(kind: type, name: str) -> int:
    """Return the dimension of a named tensor that has one entry per input."""
    outer, _, inner = name.partition(".")
    fields = {field.name: field.metadata for field in dataclasses.fields(kind)}
    if "nested" not in fields[outer]:
        return 0
    nested = {field.name: field.metadata for field in dataclasses.fields(fields[outer]["nested"])}
    return int(nested[inner].get("input_dimension", 0))


def chosen(result: A, rows: Tensor) -> A:
    """Return the result for some inputs, in the order of their numbers `(m,)`."""
    selected, count = {}, len(cast(Any, result))
    for name, value in tensors_of(result).items():
        dimension = input_dimension(type(result), name)
        require(
            value.shape[dimension : dimension + 1] == (count,),
            f"expected {name} to have one entry for each of {count} inputs, got shape "
            f"{tuple(value.shape)}",
        )
        selected[name] = value.index_select(dimension, rows.to(value.device))
    return cast(A, dataclasses.replace(cast(Any, result), **fields_of(type(result), selected)))


def rows_of(index: object, count: int) -> Tensor:
    """Return the numbers `(m,)` of the inputs that an index selects.

    Args:
        index: a number, a slice, a mask `(count,)`, or several numbers; negative numbers count from
            the end.
        count: the number of inputs.
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
    is_integer = not (rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex())
    if rows.ndim != 1 or not (is_integer or not rows.numel()):
        actual = f"{rows.dtype} of shape {tuple(rows.shape)}" if rows.ndim else type(index).__name__
        raise UnilensError(
            f"expected an index of inputs: a number, a slice, a mask of shape ({count},) or "
            f"several numbers, got {actual}"
        )
    rows = rows.long()
    wrong = rows[(rows < -count) | (rows >= count)].tolist()
    require(
        not wrong,
        f"expected an index below {count}, the number of inputs, got {wrong[:1] and wrong[0]}",
    )
    return rows.where(rows >= 0, rows + count)


def moved(result: A, *where: object) -> A:
    """Return a copy with tensors on a device, and floating-point tensors in a dtype.

    Args:
        result: to move.
        where: a device, a floating-point dtype, or both.
    """
    dtypes = [given for given in where if isinstance(given, torch.dtype)]
    devices = [_device(given) for given in where if not isinstance(given, torch.dtype)]
    for dtype in dtypes:
        require(dtype.is_floating_point, f"expected a floating-point dtype, got {dtype}")

    def move(value: Tensor) -> Tensor:
        for destination in [*devices, *(dtypes if value.is_floating_point() else [])]:
            value = value.to(cast(Any, destination))
        return value

    try:
        return map_tensors(result, move)
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
    """Return values as an array, detached; bfloat16, which NumPy lacks, becomes float32."""
    values = values.detach().cpu()
    known = values.dtype in (torch.float16, torch.float32, torch.float64)
    return cast(Array, (values if known else values.float()).numpy())

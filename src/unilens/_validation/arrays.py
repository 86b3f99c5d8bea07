"""Numbers, arrays and frames of other libraries, as Python's numbers and as tensors.

None of those libraries is needed: what counts is how an object behaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy
import torch
from torch import Tensor

from ..errors import UnilensError, require

Array = numpy.ndarray[Any, numpy.dtype[Any]]
_MISSING = ("NAType", "NaTType")
"""What pandas calls its values for what is missing."""
_KINDS = {
    "U": "text",
    "S": "text",
    "T": "text",
    "M": "dates",
    "m": "times",
    "c": "complex numbers",
    "V": "records",
}
_REMEDIES = {
    "text": "encode text as numbers first",
    "dates": "convert dates to numbers first, such as days since the first",
    "times": "convert times to numbers first, such as seconds",
    "complex numbers": "pass their real and imaginary parts as features",
    "records": "convert them with numpy.lib.recfunctions.structured_to_unstructured",
}


def as_number(value: object) -> object:
    """Return a number or a truth of another library as Python's own; anything else as it is.

    NumPy's, pandas' and torch's scalars and arrays without dimensions, fractions and decimals. A
    tensor that requires a gradient stays a tensor.

    >>> as_number(numpy.int64(8)), as_number(torch.tensor(0.5)), as_number(numpy.True_)
    (8, 0.5, True)
    """
    if type(value) in (int, float, bool, str):
        return value
    if isinstance(value, Tensor) and (value.requires_grad or value.is_meta):
        return value
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if isinstance(value, (bool, str)):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, (Real, Decimal)) else value


def is_missing(value: object) -> bool:
    """Return whether a value stands for a missing one: None, NaN, or pandas' NA and NaT."""
    if value is None or type(value).__name__ in _MISSING:
        return True
    number = as_number(value)
    return isinstance(number, float) and number != number


def to_tensor(name: str, given: object) -> object:
    """Return an array or a frame of another library as a tensor; anything else as it is.

    Taken are NumPy's arrays of any memory layout, byte order and width, pandas' and polars' frames
    and columns, SciPy's and torch's sparse matrices, and whatever converts itself to an array. The
    numbers of frames become floating-point; missing ones become NaN.

    Args:
        name: of what is given, for the message.
        given: anything.

    Raises:
        UnilensError: it is an array, but not one of numbers.
    """
    if isinstance(given, Tensor):
        require(
            type(given).__name__ != "MaskedTensor",
            f"expected {name} without masked values, got a MaskedTensor; call .to_tensor(value)",
        )
        require(
            not given.is_nested,
            f"expected {name} of one shape, got a nested tensor; pad them, or take them one by one",
        )
        require(
            not given.is_quantized,
            f"expected {name} of numbers, got a quantised tensor; convert it with .dequantize()",
        )
        return given if given.layout == torch.strided else given.to_dense()
    return torch.from_numpy(to_array(name, given)) if is_array(given) else given


def is_array(given: object) -> bool:
    """Return whether something is an array, a frame or a sparse matrix, other than a tensor."""
    if isinstance(given, (Tensor, type)):
        return False
    return any(hasattr(given, name) for name in ("__array__", "toarray", "to_numpy"))


def to_array(name: str, given: Any) -> Array:
    """Return an array, a frame or a sparse matrix as an array of its own that torch can take.

    Args:
        name: of what is given, for the message.
        given: for which `is_array` is true, or lists of numbers.

    Raises:
        UnilensError: it holds something other than numbers, or masked values.
    """
    require(
        not isinstance(given, numpy.ma.MaskedArray) or not numpy.ma.is_masked(given),
        f"expected {name} without masked values, got a masked array; fill them with .filled(...)",
    )
    framed = hasattr(given, "to_numpy")
    array = bare_array(name, given)
    if array.dtype.kind == "O":
        array = _numbers(name, array, given)
    kind = _KINDS.get(array.dtype.kind)
    if kind is not None:
        actual = f"{type(given).__name__} with {kind}"
        raise UnilensError(f"expected {name} of numbers, got {actual}; {_REMEDIES[kind]}")
    if (framed and array.dtype.kind in "iub") or array.dtype.char == "g":  # g: longer than float64
        array = array.astype(numpy.float64)
    return numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C", subok=False)


def bare_array(name: str, given: Any) -> Array:
    """Return an array, a frame or a sparse matrix as an array of whatever it holds.

    Args:
        name: of what is given, for the message.
        given: for which `is_array` is true.

    Raises:
        UnilensError: it is no array in memory, or a frame with dates.
    """
    if isinstance(given, numpy.ma.MaskedArray):
        return given  # what is masked becomes None in its lists
    schema = getattr(given, "schema", None)
    for column, dtype in schema.items() if isinstance(schema, Mapping) else ():
        if dtype.is_temporal():  # polars' dates would become numbers in silence
            raise UnilensError(
                f"expected {name} of numbers, got {type(given).__name__} with dates in column "
                f"{column!r}; {_REMEDIES['dates']}"
            )
    try:
        if hasattr(given, "toarray"):
            given = given.toarray()
        elif hasattr(given, "to_numpy"):
            given = given.to_numpy()
        return numpy.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UnilensError(
            f"expected {name} of one shape as an array in memory, got {type(given).__name__}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _numbers(name: str, array: Array, given: object) -> Array:
    """Return an array of objects that are numbers in float64, what is missing as NaN."""
    columns = list(getattr(given, "columns", ()))
    numbers = numpy.empty(array.shape, numpy.float64)
    for index in numpy.ndindex(array.shape):
        number = numpy.nan if is_missing(array[index]) else as_number(array[index])
        if not isinstance(number, (int, float)):
            kind = _kind_of(array[index])
            column = f" in column {columns[index[-1]]!r}" if columns else ""
            raise UnilensError(
                f"expected {name} of numbers, got {type(given).__name__} with {kind}{column}; "
                f"{_REMEDIES.get(kind, 'take numbers from it first')}"
            )
        numbers[index] = number
    return numbers


def _kind_of(value: object) -> str:
    if isinstance(value, (str, bytes)):
        return "text"
    if hasattr(value, "total_seconds"):
        return "times"
    return "dates" if hasattr(value, "isoformat") else type(value).__name__

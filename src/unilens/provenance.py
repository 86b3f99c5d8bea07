"""The provenance of a result as plain data: settings and versions."""

from __future__ import annotations

import dataclasses
import functools
import platform
from importlib import metadata

import numpy
import torch
from torch import Tensor

from ._validation.arrays import as_number


def describe(value: object) -> object:
    """Return a setting as plain data: dataclasses by the fields in their repr, tensors by shape."""
    value = as_number(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = [field.name for field in dataclasses.fields(value) if field.repr]
        fields = {name: describe(getattr(value, name)) for name in shown}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, (Tensor, numpy.ndarray)):
        return f"{'Tensor' if isinstance(value, Tensor) else 'array'}{tuple(value.shape)}"
    if isinstance(value, (tuple, list)):
        return [describe(item) for item in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return getattr(value, "__qualname__", type(value).__name__)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of the software on which a result depends."""
    return {
        "unilens": metadata.version("unilens"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }

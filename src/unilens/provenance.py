"""How a result was made, as plain data."""

from __future__ import annotations

import dataclasses
import functools
import platform
from importlib import metadata

import numpy
import torch
from torch import Tensor

from ._validation.arrays import as_number


def describe(thing: object) -> object:
    """Return a setting as plain data: dataclasses by the fields they show, tensors by shape."""
    thing = as_number(thing)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        shown = [field.name for field in dataclasses.fields(thing) if field.repr]
        fields = {name: describe(getattr(thing, name)) for name in shown}
        return {"type": type(thing).__name__, **fields}
    if isinstance(thing, (Tensor, numpy.ndarray)):
        return f"{'Tensor' if isinstance(thing, Tensor) else 'array'}{tuple(thing.shape)}"
    if isinstance(thing, (tuple, list)):
        return [describe(one) for one in thing]
    if isinstance(thing, (str, int, float, bool, type(None))):
        return thing
    return getattr(thing, "__qualname__", type(thing).__name__)


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "unilens": metadata.version("unilens"),
        "torch": str(torch.__version__),
        "python": platform.python_version(),
    }

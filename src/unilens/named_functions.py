"""Functions of the user by their place, as in `package.module:function`."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import UnilensError


def call_named(place: str) -> Any:
    """Return what the function at `package.module:function` returns.

    Raises:
        UnilensError: there is no such module or function.
    """
    module_name, _, function_name = place.partition(":")
    expected = "expected py:package.module:function"
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UnilensError(
            f"{expected}, but {module_name!r} cannot be imported: {error}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UnilensError(f"{expected}, but {module_name!r} has no function {function_name!r}")
    return function()

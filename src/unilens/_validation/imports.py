"""Functions of the user by their place, as in `package.module:function`."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from typing import Any

from ..errors import UnilensError


def import_from_string(place: str) -> Callable[..., Any]:
    """Return the function at `package.module:function`.

    Raises:
        UnilensError: there is no such module or function.
    """
    expected = "expected py:package.module:function"
    module, _, name = place.partition(":")
    try:
        function = pkgutil.resolve_name(f"{module}:{name}")
    except (ImportError, ValueError) as error:
        raise UnilensError(f"{expected}, but {module!r} cannot be imported: {error}") from error
    except AttributeError:
        function = None
    if not callable(function):
        raise UnilensError(f"{expected}, but {module!r} has no function {name!r}")
    return function

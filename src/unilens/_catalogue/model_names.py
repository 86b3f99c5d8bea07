"""Names of models, checked before torch and the libraries that have them are loaded."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from ..errors import UnknownNameError
from .entries import listing

DEFAULT_MODEL = "efficientnet_lite0"
PREFIXES = ("timm", "torchvision", "hf", "py", "truth")
_LIBRARIES = ("timm", "torchvision")
"""Libraries whose registered models are offered where a name without its library is given."""


def check_model(name: str, bundled: Iterable[str] | None = None) -> None:
    """Raise `UnknownNameError` unless it is a bundled model or has the form KIND:NAME.

    Args:
        name: as for `unilens.load_model`.
        bundled: names of models without a library; None for those of the package.
    """
    prefix, colon, _ = name.partition(":")
    if colon and prefix not in PREFIXES:
        raise UnknownNameError("kind of model", prefix, PREFIXES, "Expected KIND:NAME.")
    known = list(listing("models") if bundled is None else bundled)
    if not colon and name.replace("-", "_") not in known:
        raise _unknown_model(name, known)


def _unknown_model(name: str, bundled: Iterable[str]) -> UnknownNameError:
    """Return the error of a name that is no model's; it offers the libraries that have it."""
    offers = [f"{library}:{name}" for library in _LIBRARIES if name in _models_of(library)]
    if offers:
        return UnknownNameError("model", name, offers)
    return UnknownNameError("model", name, bundled)


@functools.cache
def _models_of(library: str) -> frozenset[str]:
    """Return the names of a library's models, read from its files: importing it takes seconds."""
    found = find_spec(library)
    names: set[str] = set()
    for folder in () if found is None else found.submodule_search_locations or ():
        for file in (Path(folder) / "models").glob("*.py"):
            text = file.read_text(encoding="utf-8", errors="replace")
            names.update(_REGISTERED.findall(text))
    return frozenset(names)


_REGISTERED = re.compile(r"^@register_model\b.*\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)

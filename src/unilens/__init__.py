"""unilens: explains the outputs of neural networks by what each input value contributes.

`import unilens` is quick: torch is loaded with the first name that needs it.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import UnilensError, UnknownNameError
from .registry import Card, MetricCard

if TYPE_CHECKING:
    from . import groups as groups
    from . import tables as tables
    from . import text as text
    from ._engine.evaluator import Evaluator
    from .attribution import Attribution
    from .benchmark.recommend import recommend
    from .methods import explain
    from .metrics import evaluate
    from .models import PixelClassifier, load_model
    from .output import viz as viz
    from .path_attribution import PathAttribution

__all__ = [
    "Attribution",
    "Card",
    "Evaluator",
    "PathAttribution",
    "PixelClassifier",
    "UnilensError",
    "UnknownNameError",
    "baselines",
    "evaluate",
    "explain",
    "load_model",
    "methods",
    "metrics",
    "paths",
    "recommend",
    "weightings",
]
_MODULES = {"groups": ".groups", "tables": ".tables", "text": ".text", "viz": ".output.viz"}
_LAZY = {
    "Attribution": ".attribution",
    "Evaluator": "._engine.evaluator",
    "PathAttribution": ".path_attribution",
    "PixelClassifier": ".models",
    "evaluate": ".metrics",
    "explain": ".methods",
    "load_model": ".models",
    "recommend": ".benchmark.recommend",
}


def methods() -> dict[str, Card]:
    """Return the cards of all methods, by name."""
    return _cards("methods")


def baselines() -> dict[str, Card]:
    """Return the cards of all baselines, by name."""
    return _cards("baselines")


def metrics() -> dict[str, MetricCard]:
    """Return the cards of all metrics, by name."""
    return _cards("metrics")


def paths() -> dict[str, Card]:
    """Return the cards of all paths, by name."""
    return _cards("paths")


def weightings() -> dict[str, Card]:
    """Return the cards of all weightings, by name."""
    return _cards("weightings")


def _cards(kind: str) -> dict[str, Any]:
    registry = getattr(import_module(f".{kind}", __name__), kind)
    return {name: entry.card for name, entry in registry.items()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name], __name__)
    if name == "__version__":
        return version("unilens")
    if name not in _LAZY:
        raise AttributeError(f"module 'unilens' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_MODULES})


class _Package(ModuleType):
    """This module, whose functions `methods`, `metrics` and the like keep their names.

    Python sets a package's attribute to a submodule when that is imported; five submodules have the
    names of functions.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and callable(self.__dict__.get(name))):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

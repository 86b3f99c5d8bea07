"""unilens: explains the outputs of neural networks by what each input value contributes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from ._engine.evaluator import Evaluator
from .attribution import Attribution
from .baselines.base import baselines as _baselines
from .errors import UnilensError, UnknownNameError
from .methods import explain
from .methods import methods as _methods
from .metrics import evaluate
from .metrics import metrics as _metrics
from .metrics.measurement import MetricCard
from .output import notebook as _notebook  # noqa: F401  # so that notebooks show attributions
from .path_attribution import PathAttribution
from .paths.base import paths as _paths
from .registry import Card
from .weightings.base import weightings as _weightings

if TYPE_CHECKING:
    from . import groups as groups
    from . import tables as tables
    from . import text as text
    from .models import PixelClassifier, load_model
    from .output import viz as viz

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
    "weightings",
]
_MODULES = {"groups": ".groups", "tables": ".tables", "text": ".text", "viz": ".output.viz"}
_LAZY = {"PixelClassifier": ".models", "load_model": ".models"}


def methods() -> dict[str, Card]:
    """Return the cards of all methods, by name."""
    return {name: entry.card for name, entry in _methods.items()}


def baselines() -> dict[str, Card]:
    """Return the cards of all baselines, by name."""
    return {name: entry.card for name, entry in _baselines.items()}


def metrics() -> dict[str, MetricCard]:
    """Return the cards of all metrics, by name."""
    return {name: cast(MetricCard, entry.card) for name, entry in _metrics.items()}


def paths() -> dict[str, Card]:
    """Return the cards of all paths, by name."""
    return {name: entry.card for name, entry in _paths.items()}


def weightings() -> dict[str, Card]:
    """Return the cards of all weightings, by name."""
    return {name: entry.card for name, entry in _weightings.items()}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name], __name__)
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module 'unilens' has no attribute {name!r}")

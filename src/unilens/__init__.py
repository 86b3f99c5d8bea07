"""unilens: what a neural network saw, compared with a baseline that it learned."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from .attribution import Attribution
from .baselines.base import baselines as _baselines
from .errors import UnilensError, UnknownNameError
from .gradients import Evaluator
from .integration import PathAttribution
from .methods import explain
from .methods import methods as _methods
from .metrics import evaluate
from .metrics import metrics as _metrics
from .metrics.base import MetricCard
from .paths.base import paths as _paths
from .registry import Card
from .weightings import weightings as _weightings

if TYPE_CHECKING:
    from . import viz as viz
    from .models import PixelClassifier, load_model

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
_LAZY = {"PixelClassifier": ".models", "load_model": ".models", "viz": ".viz"}


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
    if name in _LAZY:
        module = import_module(_LAZY[name], __name__)
        return module if name == "viz" else getattr(module, name)
    raise AttributeError(f"module 'unilens' has no attribute {name!r}")

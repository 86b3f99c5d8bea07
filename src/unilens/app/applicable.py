"""The methods that fit a model and its inputs."""

from __future__ import annotations

from torch import Tensor

from .._engine.evaluator import Evaluator
from ..errors import UnilensError
from ..methods import methods
from .request import MAX_PASSES


def applies(name: str, evaluator: Evaluator, inputs: Tensor) -> bool:
    """Return whether a method takes a model and inputs, and costs no more than the page allows.

    Args:
        name: of the method; one that needs references gets the inputs as such.
        evaluator: of the model.
        inputs: `(1, *S)`.
    """
    entry = methods[name]
    try:
        explainer = entry(**{"references": inputs} if needs_references(name) else {})
        explainer.check(evaluator, inputs)
    except UnilensError:
        return False
    return explainer.passes.forward <= MAX_PASSES


def needs_references(name: str) -> bool:
    """Return whether a method averages over references."""
    return "references" in methods[name].settings_with({})


def applicable_methods(evaluator: Evaluator, inputs: Tensor, *, references: bool) -> list[str]:
    """Return the names of the methods that take a model and inputs, on the page.

    Args:
        evaluator: of the model.
        inputs: `(1, *S)`.
        references: whether to include methods that need references.
    """
    return [
        name
        for name in methods
        if (references or not needs_references(name)) and applies(name, evaluator, inputs)
    ]

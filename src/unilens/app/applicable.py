"""The methods that fit a module of tables or series."""

from __future__ import annotations

import contextlib

from torch import Tensor

from .._engine.evaluator import Evaluator
from ..errors import UnilensError
from ..methods import methods
from .request import MAX_PASSES


def applicable_methods(evaluator: Evaluator, inputs: Tensor, *, references: bool) -> list[str]:
    """Return the names of the methods that take a model and inputs, on the page.

    Args:
        evaluator: of the model.
        inputs: `(1, *S)`.
        references: whether to include methods that need references.
    """
    names = []
    for name, entry in methods.items():
        if not references and "references" in entry.settings_with({}):
            continue
        with contextlib.suppress(UnilensError):
            settings = {"references": inputs} if "references" in entry.settings_with({}) else {}
            explainer = entry(**settings)
            explainer.check(evaluator, inputs)
            if explainer.passes.forward <= MAX_PASSES:
                names.append(name)
    return names

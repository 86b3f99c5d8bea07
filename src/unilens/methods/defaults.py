"""The method that `explain` takes where none is named, chosen by the kind of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from .._catalogue import SHOWN_BY_DEFAULT as SHOWN_BY_DEFAULT
from .._engine.evaluator import Evaluator
from .._engine.packing import MultiInputs
from .._engine.unlearning import weights_of
from .._ops.spatial import has_regions
from ..multi_input import to_tensors

FEWEST_ROWS = 10
"""Rows of one call from which they serve as references for each other."""
_FOR_ROWS = "expected_gradients"

_MOST_REFERENCES = 30
_TABLE_STEPS = 1000
"""Of expected gradients on tables, whose passes are cheap; 200 draws miss more of the change."""


class DefaultMethod(NamedTuple):
    """A method chosen for the user.

    Attributes:
        name: in the registry.
        settings: that differ from its defaults.
        reason: one line for the provenance.
        has_reference: whether there is something sensible to compare the inputs with.
    """

    name: str
    settings: Mapping[str, Any]
    reason: str
    has_reference: bool = True


UNI_BLUR = DefaultMethod("uni_blur", {}, "uni_blur, the default for images")
UNI = DefaultMethod("uni", {}, "uni, which alone has the settings given")
IG_WITHOUT_WEIGHTS = DefaultMethod(
    "ig", {"baseline": "blur"}, "ig from the blurred input, since no weights can be unlearned"
)
IG_FROM_ZERO = DefaultMethod("ig", {}, "ig from 0, since there are no references", False)


def default_method(
    model: nn.Module | Evaluator,
    inputs: Tensor | MultiInputs,
    given: Mapping[str, Any],
    *,
    grey: bool = False,
) -> DefaultMethod:
    """Return the default method for inputs; docs/warnings.md has the measurements.

    Images, volumes and clips: `uni_blur`. All else: `expected_gradients`, with the references given
    or with rows of the same call. Integrated gradients from a baseline that is given, from the
    blurred image where the model has no weights to unlearn, and from 0 where there are no
    references.

    Args:
        model: its weights are looked at.
        inputs: `(B, *S)`, or several.
        given: the user's settings.
        grey: whether inputs `(B, H, W)` are images without channels.
    """
    if "baseline" in given:
        return DefaultMethod("ig", {}, "ig from the baseline given")
    single = isinstance(inputs, Tensor)
    tensors = [value for value in _values(inputs) if isinstance(value, Tensor) and value.ndim]
    if grey or any(has_regions(value) for value in tensors):
        module = model.model if isinstance(model, Evaluator) else model
        learns = not isinstance(module, nn.Module) or weights_of(module, "all")
        return UNI_BLUR if learns else IG_WITHOUT_WEIGHTS
    if given.get("create_graph"):
        return IG_FROM_ZERO
    steps = {"n_steps": _TABLE_STEPS} if single and cast(Tensor, inputs).ndim == 2 else {}
    if "references" in given:
        return DefaultMethod(_FOR_ROWS, steps, f"{_FOR_ROWS} with the references given")
    rows = len(cast(Tensor, inputs)) if single else 0
    if rows < FEWEST_ROWS:
        return IG_FROM_ZERO
    chosen = torch.linspace(0, rows - 1, min(rows, _MOST_REFERENCES)).round().long()
    references = cast(Tensor, inputs).detach()[chosen.to(cast(Tensor, inputs).device)]
    reason = f"{_FOR_ROWS} with {len(chosen)} inputs of this call as references"
    return DefaultMethod(_FOR_ROWS, {"references": references, **steps}, reason)


def _values(inputs: Tensor | MultiInputs) -> list[object]:
    """Return the single inputs, arrays of other libraries as tensors."""
    if isinstance(inputs, Tensor):
        return [inputs]
    read = to_tensors(inputs)
    return list(read.values() if isinstance(read, Mapping) else read)

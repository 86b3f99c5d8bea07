"""The method that `explain` takes where none is named, chosen by the kind of inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._engine.packing import MultiInputs
from .._ops.spatial import has_regions
from .contradiction import FEWEST_ROWS

_MOST_REFERENCES = 30
_TABLE_STEPS = 1000
"""Of expected gradients on tables, whose passes are cheap; 200 draws miss more of the change."""


SHOWN_BY_DEFAULT = ("uni_blur", "uni")
"""Methods that the command line and the page show beside each other; each has its question."""


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
IG_FROM_BLUR = DefaultMethod(
    "ig", {"baseline": "blur"}, "ig from the blurred input, since the outputs have no classes"
)
IG_FROM_ZERO = DefaultMethod("ig", {}, "ig from 0, since there are no references", False)


def default_method(
    inputs: Tensor | MultiInputs, given: Mapping[str, Any], channels: str | int
) -> DefaultMethod:
    """Return the default method for inputs; docs/which-method.md has the measurements.

    Images, volumes and clips: `uni_blur`. All else: `expected_gradients`, with the references given
    or with rows of the same call; integrated gradients from 0 where there are neither.

    Args:
        inputs: `(B, *S)`, or several.
        given: the user's settings.
        channels: as in `unilens.explain`.
    """
    values = list(inputs.values()) if isinstance(inputs, Mapping) else inputs
    values = [values] if isinstance(values, Tensor) else list(values)
    tensors = [value for value in values if isinstance(value, Tensor) and value.ndim]
    if any(has_regions(value) or (channels == "none" and value.ndim == 3) for value in tensors):
        return UNI_BLUR
    name = "expected_gradients"
    if "references" in given:
        return DefaultMethod(name, {}, f"{name} with the references given")
    rows = min((len(value) for value in tensors), default=0)
    if rows >= FEWEST_ROWS and isinstance(inputs, Tensor):
        chosen = torch.linspace(0, rows - 1, min(rows, _MOST_REFERENCES)).round().long()
        settings: dict[str, Any] = {"references": inputs.detach()[chosen.to(inputs.device)]}
        if inputs.ndim == 2:
            settings["n_steps"] = _TABLE_STEPS
        reason = f"{name} with {len(chosen)} inputs of this call as references"
        return DefaultMethod(name, settings, reason)
    return IG_FROM_ZERO

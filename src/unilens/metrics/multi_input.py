"""Metrics of maps of several inputs: they are measured over all parts together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._engine.packing import MultiInputs, pack
from .._ops.fields import chosen
from .._validation.inputs import Target
from ..attribution import Attribution
from ..errors import NotApplicableError
from ..multi_input import (
    MultiInputAttribution,
    check_rows,
    each_group,
    joined_entries,
    joined_rows,
    read_inputs,
    target_of,
    to_tensors,
)

if TYPE_CHECKING:
    from .measurement import Measurement

MultiInputMaps = MultiInputAttribution | MultiInputs
"""What `unilens.explain` gave for several inputs, or maps in their structure, each `(B, *S)`."""
Measure = Callable[[Evaluator, Tensor, Attribution | Tensor, Target, Tensor], "Measurement"]


def measure_multi_input(
    measure: Measure,
    model: nn.Module | Evaluator,
    inputs: MultiInputs,
    attribution: object,
    target: Target,
    beside: Mapping[str, object],
) -> Measurement:
    """Measure maps of several inputs, which lie side by side as one tensor; see `each_group`.

    Args:
        measure: from an evaluator, values `(m, D)`, their maps, targets and rows `(m,)`.
        model: called with the parts.
        inputs: the parts, each `(B, *S)`.
        attribution: see `MultiInputMaps`.
        target: as in `unilens.evaluate`.
        beside: what else was given, by name; each must be None.
    """
    for name, given in beside.items():
        if given is not None:
            raise NotApplicableError(
                f"expected no {name} where inputs come in parts, got {type(given).__name__}; leave "
                "it out"
            )
    packed = pack(read_inputs(inputs, model))
    known = attribution.whole if isinstance(attribution, MultiInputAttribution) else None
    separate = isinstance(attribution, (Mapping, tuple))
    given = to_tensors(cast(MultiInputs, attribution)) if separate else attribution
    maps = known if known is not None else packed.input_spec.read("maps", given)
    check_rows("maps", maps.values if isinstance(maps, Attribution) else maps, packed)
    found, rows = each_group(
        model,
        packed,
        lambda evaluator, rows: measure(
            evaluator,
            packed.values[rows],
            chosen(maps, rows) if isinstance(maps, Attribution) else maps[rows],
            target_of(target, rows, len(packed.values)),
            rows,
        ),
    )
    return dataclasses.replace(
        found[0],
        values=joined_rows([one.values for one in found], rows),
        breakdown=joined_entries([one.breakdown for one in found], rows),
        details=joined_entries([one.details for one in found], rows),
    )

"""Explanations of several inputs, in the structure in which the inputs came."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from ._engine.evaluator import Evaluator
from ._engine.packing import Frozen, InputSpec, PackedInputs, PackedModel, Parts, pack
from ._ops.fields import chosen, to_numpy
from ._ops.files import load, not_whole, save
from ._validation.arrays import as_number, to_tensor
from ._validation.inputs import Target, check_model, embedding_hint, read_target
from .attribution import Attribution
from .diagnostics import Trace
from .errors import UnilensError, require

T = TypeVar("T")
_PER_INPUT = ("values", "target", "score", "outputs", "baseline", "baseline_score")


@dataclass(frozen=True, slots=True, eq=False)
class PartsAttribution:
    """An attribution over several inputs, in the structure in which they came.

    All else that an `Attribution` has is there by the same name (`target`, `score`, `warnings`,
    `trace`, `with_measured` ...), over all parts together: so is the completeness gap.

    Attributes:
        whole: the attribution of all parts, side by side `(B, D)`.
        input_spec: where each part lies.
    """

    whole: Attribution
    input_spec: InputSpec

    @property
    def values(self) -> Any:
        """What every value contributed, in units of the score; each part `(B, *S)`.

        Parts that are held fixed are left out of a mapping; in a tuple they are None.
        """
        return self.input_spec.unpack(self.whole.values)

    @property
    def saliency(self) -> Any:
        """The absolute values, each part `(B, *S)`."""
        return self.input_spec.unpack(self.whole.saliency)

    @property
    def baseline(self) -> Any:
        """What the parts are compared with, each `(B, *S)`; None for methods without one."""
        return None if self.whole.baseline is None else self.input_spec.unpack(self.whole.baseline)

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - the sum of all parts' values, `(B,)`, in units of the score."""
        return self.whole.completeness_gap

    def with_measured(self, **measured: Tensor) -> PartsAttribution:
        """Return a copy that knows more diagnostics, each `(B,)`."""
        return dataclasses.replace(self, whole=self.whole.with_measured(**measured))

    def with_provenance(self, **provenance: object) -> PartsAttribution:
        """Return a copy with further entries in its provenance."""
        return dataclasses.replace(self, whole=self.whole.with_provenance(**provenance))

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: object) -> PartsAttribution:
        """Return the attribution of some of the inputs; see `Attribution.__getitem__`."""
        return dataclasses.replace(self, whole=self.whole[index])

    def __iter__(self) -> Iterator[PartsAttribution]:
        return (self[row] for row in range(len(self)))

    def to(self, *where: torch.device | str | torch.dtype) -> PartsAttribution:
        """Return a copy on a device, its floating-point tensors in a dtype: either, or both."""
        return dataclasses.replace(self, whole=self.whole.to(*where))

    def cpu(self) -> PartsAttribution:
        """Return a copy on the CPU."""
        return self.to("cpu")

    def numpy(self) -> Any:
        """Return the values as arrays, each part `(B, *S)`, in the structure of `values`."""
        values = self.values
        if isinstance(values, dict):
            return {name: to_numpy(part) for name, part in values.items()}
        return tuple(None if part is None else to_numpy(part) for part in values)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the attribution to a file; see `Attribution.save`."""
        save(self.whole, path, overwrite, {"parts": json.dumps(_input_spec_data(self.input_spec))})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> PartsAttribution:
        """Return the attribution in a file, on the CPU; see `Attribution.load`."""
        whole, header = load(Attribution, path)
        require(
            "parts" in header,
            f"expected {path} to hold an attribution of several inputs, got one of one; load it "
            "with Attribution.load",
        )
        try:
            return cls(whole, _input_spec_of(json.loads(header["parts"])))
        except (KeyError, TypeError, ValueError) as error:
            raise not_whole(path) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("whole", "input_spec"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.whole, name)


def _input_spec_data(input_spec: InputSpec) -> dict[str, object]:
    shapes = [[name, list(shape)] for name, shape in input_spec.shapes.items()]
    return {"shapes": shapes, "arguments": list(input_spec.arguments), "named": input_spec.named}


def _input_spec_of(data: Mapping[str, Any]) -> InputSpec:
    shapes = {name: torch.Size(shape) for name, shape in data["shapes"]}
    return InputSpec(shapes, tuple(data["arguments"]), data["named"])


def explain_parts(
    explain: Callable[[Evaluator, Tensor, Target, Tensor], Attribution],
    model: nn.Module | Evaluator,
    inputs: Parts,
    target: Target,
) -> PartsAttribution:
    """Explain a model of several inputs; see `each_group`.

    Args:
        explain: from an evaluator, values `(m, D)`, their targets and their rows `(m,)`.
        model: called with the parts, by keyword or position.
        inputs: the parts, each `(B, *S)`.
        target: as in `Method.__call__`.
    """
    packed = pack(read_parts(inputs, model))
    found = each_group(
        model,
        packed,
        lambda evaluator, rows: explain(
            evaluator, packed.values[rows], target_of(target, rows, len(packed.values)), rows
        ),
    )
    return PartsAttribution(joined(*found), packed.input_spec)


def read_parts(inputs: Parts, model: nn.Module | Evaluator) -> Parts:
    """Return parts whose arrays and frames of other libraries are tensors on the model's device.

    Raises:
        UnilensError: an array is not one of numbers, or the only parts are token ids.
    """
    module = model.model if isinstance(model, Evaluator) else model
    check_model(module)
    weight = next(chain(module.parameters(), module.buffers()), None)
    read = to_tensors(inputs, None if weight is None else weight.device)
    values = dict(read.items() if isinstance(read, Mapping) else enumerate(read))
    tensors = {name: part for name, part in values.items() if isinstance(part, Tensor)}
    attributed = any(part.is_floating_point() for part in tensors.values())
    ids = any(part.dtype in (torch.int32, torch.int64) for part in tensors.values())
    if ids and not attributed and (hint := embedding_hint(module)):
        raise UnilensError(
            "expected at least one part with floating-point values to explain, got none in "
            f"{', '.join(map(str, tensors))}{hint}"
        )
    return read


def to_tensors(parts: Parts, device: torch.device | None = None) -> Parts:
    """Return parts whose arrays and frames of other libraries are tensors; see `to_tensor`."""
    if isinstance(parts, Mapping):
        return {name: _to_tensor(name, part, device) for name, part in parts.items()}
    return tuple(_to_tensor(place, part, device) for place, part in enumerate(parts))


def _to_tensor(name: object, part: object, device: torch.device | None) -> object:
    if isinstance(part, Frozen):
        return Frozen(_to_tensor(name, part.value, device))
    read = to_tensor(f"part {name!r}", part if isinstance(part, Tensor) else as_number(part))
    return read.to(device) if isinstance(read, Tensor) and read is not part else read


def each_group(
    model: nn.Module | Evaluator, packed: PackedInputs, work: Callable[[Evaluator, Tensor], T]
) -> tuple[list[T], list[Tensor]]:
    """Return what the work gives for the inputs that hold the same, and their rows `(m,)`.

    What is held belongs to an input, and methods ask for points of some inputs in any order: so
    each group has an evaluator of its own. As what comes out for an input does not depend on its
    batch, the groups together give what one batch would.
    """
    found, places = [], []
    for rows, held in packed.groups():
        found.append(work(_evaluator(model, packed.input_spec, held), rows))
        places.append(rows)
    return found, places


def measure_diagnostics(
    measure: Callable[[Evaluator, Tensor, Attribution], Mapping[str, Tensor]],
    model: nn.Module | Evaluator,
    inputs: Parts,
    attribution: PartsAttribution,
) -> dict[str, Tensor]:
    """Return diagnostics `(B,)` of an attribution over several inputs, by name."""
    packed = pack(read_parts(inputs, model))
    check_rows("attribution", attribution.whole.values, packed)
    found, rows = each_group(
        model,
        packed,
        lambda evaluator, rows: measure(
            evaluator, packed.values[rows], chosen(attribution.whole, rows)
        ),
    )
    return joined_entries(found, rows)


def check_rows(what: str, values: Tensor, packed: PackedInputs) -> None:
    """Raise where something is not of as many inputs as there are."""
    count, came = len(packed.values), len(values)
    require(
        count == came,
        f"expected {what} of {count} inputs, as many as there are, got {came}; pass what was made "
        "of these inputs",
    )


def _evaluator(
    model: nn.Module | Evaluator, input_spec: InputSpec, held: Mapping[Any, object]
) -> Evaluator:
    if isinstance(model, Evaluator):
        return model.with_model(PackedModel(model.model, input_spec, held))
    check_model(model)
    return Evaluator(PackedModel(model, input_spec, held))


def target_of(target: Target, rows: Tensor, count: int) -> Target:
    """Return the targets of some inputs."""
    target = read_target(target)
    if len(rows) == count or target is None or isinstance(target, (int, float, str)):
        return cast(Target, target)
    if not getattr(target, "ndim", 1):
        return target
    given = target
    if len(given) != count:
        raise UnilensError(
            f"expected `target` of shape ({count},), got ({len(given)},); pass one index for all, "
            "or one per input"
        )
    return given[rows] if isinstance(given, Tensor) else [given[row] for row in rows.tolist()]


def joined(found: Sequence[Attribution], rows: Sequence[Tensor]) -> Attribution:
    """Return the attributions of groups of inputs as one, every input in its row."""
    if len(found) == 1:
        return found[0]
    first = found[0]
    columns = {
        name: joined_rows([getattr(one, name) for one in found], rows) for name in _PER_INPUT
    }
    seconds = sum(cast(float, one.provenance.get("seconds", 0.0)) for one in found)
    return dataclasses.replace(
        first,
        **columns,
        trace=_joined_trace([one.trace for one in found], rows),
        record=joined_entries([one.record for one in found], rows),
        measured=joined_entries([one.measured for one in found], rows),
        provenance={**first.provenance, "seconds": seconds},
    )


def joined_rows(columns: Sequence[Any], rows: Sequence[Tensor], dim: int = 0) -> Any:
    """Return tensors of groups of inputs as one, each input in its row; None where one is None."""
    if any(column is None for column in columns):
        return None
    return torch.cat(list(columns), dim).index_select(dim, torch.cat(list(rows)).argsort())


def joined_entries(
    entries: Sequence[Mapping[str, Tensor]], rows: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Return the entries `(m, ...)` that all groups have in the same shape, joined."""
    return {
        name: joined_rows([one[name] for one in entries], rows)
        for name, value in entries[0].items()
        if all(name in one and one[name].shape[1:] == value.shape[1:] for one in entries)
    }


def _joined_trace(traces: Sequence[Trace | None], rows: Sequence[Tensor]) -> Trace | None:
    known = [trace for trace in traces if trace is not None]
    if len(known) < len(traces) or len({len(trace.score) for trace in known}) > 1:
        return None
    return Trace(
        joined_rows([trace.fraction for trace in known], rows, 1),
        joined_rows([trace.score for trace in known], rows, 1),
        joined_rows([trace.confidence for trace in known], rows, 1),
        joined_rows([trace.gradient_change for trace in known], rows),
    )

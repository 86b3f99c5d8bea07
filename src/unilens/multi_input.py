"""Explanations of several inputs: packed into one tensor, explained, and unpacked."""

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
from ._engine.packing import Frozen, InputSpec, MultiInputs, PackedInputs, PackedModel, pack
from ._ops.fields import chosen, to_numpy
from ._ops.files import load, not_whole, save
from ._validation.arrays import as_number, to_tensor
from ._validation.inputs import Target, read_target
from ._validation.models import check_model, embedding_hint
from .attribution import Attribution, check_whole, summary
from .diagnostics import Trace
from .errors import UnilensError, require

T = TypeVar("T")
A = TypeVar("A", Attribution, "MultiInputAttribution")
_PER_INPUT = ("values", "target", "score", "outputs", "baseline", "baseline_score", "groups")


@dataclass(frozen=True, slots=True, eq=False)
class MultiInputAttribution:
    """An attribution over several inputs, in the structure of these inputs.

    All else that an `Attribution` has is there by the same name (`target`, `score`, `warnings`,
    `trace`, `with_measured` ...), over all inputs together: so is the completeness gap.

    Attributes:
        whole: the attribution of all inputs, packed `(B, D)`.
        input_spec: where each input lies.
    """

    whole: Attribution
    input_spec: InputSpec

    @property
    def values(self) -> Any:
        """What every value contributed, in units of the score; each `(B, *S)`.

        Frozen inputs are left out of a mapping; in a tuple they are None.
        """
        return self.input_spec.unpack(self.whole.values)

    @property
    def saliency(self) -> Any:
        """The absolute values, each `(B, *S)`."""
        return self.input_spec.unpack(self.whole.saliency)

    @property
    def baseline(self) -> Any:
        """What the inputs are compared with, each `(B, *S)`; None for methods without one."""
        return None if self.whole.baseline is None else self.input_spec.unpack(self.whole.baseline)

    @property
    def completeness_gap(self) -> Tensor:
        """f(x) - f(x') - the sum of all inputs' values, `(B,)`, in units of the score."""
        return self.whole.completeness_gap

    def with_measured(self, **measured: Tensor) -> MultiInputAttribution:
        """Return a copy that knows more diagnostics, each `(B,)`."""
        return dataclasses.replace(self, whole=self.whole.with_measured(**measured))

    def with_provenance(self, **provenance: object) -> MultiInputAttribution:
        """Return a copy with further entries in its provenance."""
        return dataclasses.replace(self, whole=self.whole.with_provenance(**provenance))

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name} {tuple(shape)}" for name, shape in self.input_spec.shapes.items()
        )
        return f"{type(self).__name__} by {summary(self.whole, f'shapes {shapes}')}"

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, index: object) -> MultiInputAttribution:
        """Return the attribution of some of the inputs; see `Attribution.__getitem__`."""
        return dataclasses.replace(self, whole=self.whole[index])

    def __iter__(self) -> Iterator[MultiInputAttribution]:
        return (self[row] for row in range(len(self)))

    def to(self, *where: torch.device | str | torch.dtype) -> MultiInputAttribution:
        """Return a copy on a device, its floating-point tensors in a dtype: either, or both."""
        return dataclasses.replace(self, whole=self.whole.to(*where))

    def cpu(self) -> MultiInputAttribution:
        """Return a copy on the CPU."""
        return self.to("cpu")

    def numpy(self) -> Any:
        """Return the values as arrays `(B, *S)`, in the structure of `values`."""
        values = self.values
        if isinstance(values, dict):
            return {name: to_numpy(value) for name, value in values.items()}
        return tuple(None if value is None else to_numpy(value) for value in values)

    def save(self, path: str | PathLike[str], *, overwrite: bool = False) -> None:
        """Write the attribution to a file; see `Attribution.save`."""
        save(self.whole, path, overwrite, {"parts": json.dumps(_input_spec_data(self.input_spec))})

    @classmethod
    def load(cls, path: str | PathLike[str]) -> MultiInputAttribution:
        """Return the attribution in a file, on the CPU; see `Attribution.load`."""
        whole, header = load(Attribution, path, check_whole)
        require(
            "parts" in header,
            f"expected {path} to hold an attribution of several inputs, got one of one; load it "
            "with Attribution.load",
        )
        try:
            input_spec = _input_spec_of(json.loads(header["parts"]))
            if sum(shape.numel() for shape in input_spec.shapes.values()) != whole.values.shape[1]:
                raise ValueError("shapes")
            return cls(whole, input_spec)
        except Exception as error:  # anybody may have made the file, and anything may be in it
            raise not_whole(path) from error

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("whole", "input_spec"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.whole, name)


def whole_of(attribution: Attribution | MultiInputAttribution) -> Attribution:
    """Return an attribution; of several inputs, that of all of them together."""
    return attribution.whole if isinstance(attribution, MultiInputAttribution) else attribution


def with_whole(attribution: A, whole: Attribution) -> A:
    """Return an attribution with another one in its place; see `whole_of`."""
    if isinstance(attribution, MultiInputAttribution):
        return dataclasses.replace(attribution, whole=whole)
    return whole


def _input_spec_data(input_spec: InputSpec) -> dict[str, object]:
    shapes = [[name, list(shape)] for name, shape in input_spec.shapes.items()]
    return {"shapes": shapes, "arguments": list(input_spec.arguments), "named": input_spec.named}


def _input_spec_of(data: Mapping[str, Any]) -> InputSpec:
    shapes = {name: torch.Size(shape) for name, shape in data["shapes"]}
    return InputSpec(shapes, tuple(data["arguments"]), data["named"])


def explain_inputs(
    explain: Callable[[Evaluator, Tensor, Target, Tensor], Attribution],
    model: nn.Module | Evaluator,
    inputs: MultiInputs,
    target: Target,
) -> MultiInputAttribution:
    """Explain a model of several inputs; see `each_group`.

    Args:
        explain: from an evaluator, values `(m, D)`, their targets and their rows `(m,)`.
        model: called with the inputs, by keyword or position.
        inputs: each `(B, *S)`.
        target: as in `Method.__call__`.
    """
    packed = pack(read_inputs(inputs, model))
    results, row_groups = each_group(
        model,
        packed,
        lambda evaluator, rows: explain(
            evaluator, packed.values[rows], target_of(target, rows, len(packed.values)), rows
        ),
    )
    return MultiInputAttribution(joined(results, row_groups), packed.input_spec)


def read_inputs(inputs: MultiInputs, model: nn.Module | Evaluator) -> MultiInputs:
    """Return inputs whose arrays and frames of other libraries are tensors on the model's device.

    Raises:
        UnilensError: an array is not one of numbers, or the only inputs are token ids.
    """
    module = model.model if isinstance(model, Evaluator) else model
    check_model(module)
    weight = next(chain(module.parameters(), module.buffers()), None)
    read = to_tensors(inputs, None if weight is None else weight.device)
    values = dict(read.items() if isinstance(read, Mapping) else enumerate(read))
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    attributed = any(value.is_floating_point() for value in tensors.values())
    ids = any(value.dtype in (torch.int32, torch.int64) for value in tensors.values())
    if ids and not attributed and (hint := embedding_hint(module)):
        raise UnilensError(
            "expected at least one input with floating-point values to explain, got none in "
            f"{', '.join(map(str, tensors))}{hint}"
        )
    return read


def to_tensors(inputs: MultiInputs, device: torch.device | None = None) -> MultiInputs:
    """Return inputs whose arrays and frames of other libraries are tensors; see `to_tensor`."""
    if isinstance(inputs, Mapping):
        return {name: _to_tensor(name, value, device) for name, value in inputs.items()}
    return tuple(_to_tensor(position, value, device) for position, value in enumerate(inputs))


def _to_tensor(name: object, value: object, device: torch.device | None) -> object:
    if isinstance(value, Frozen):
        return Frozen(_to_tensor(name, value.value, device))
    read = to_tensor(f"input {name!r}", value if isinstance(value, Tensor) else as_number(value))
    return read.to(device) if isinstance(read, Tensor) and read is not value else read


def each_group(
    model: nn.Module | Evaluator, packed: PackedInputs, work: Callable[[Evaluator, Tensor], T]
) -> tuple[list[T], list[Tensor]]:
    """Return the results of some work for rows with equal frozen inputs, and these rows `(m,)`.

    Methods ask for points of some rows in any order, and frozen inputs belong to a row: so each
    group has an evaluator of its own. As the result for a row does not depend on its batch, the
    groups together give what one batch would.
    """
    results, row_groups = [], []
    for rows, frozen in packed.groups():
        results.append(work(_evaluator(model, packed.input_spec, frozen), rows))
        row_groups.append(rows)
    return results, row_groups


def measure_diagnostics(
    measure: Callable[[Evaluator, Tensor, Attribution], Mapping[str, Tensor]],
    model: nn.Module | Evaluator,
    inputs: MultiInputs,
    attribution: MultiInputAttribution,
) -> dict[str, Tensor]:
    """Return diagnostics `(B,)` of an attribution over several inputs, by name."""
    packed = pack(read_inputs(inputs, model))
    check_rows("attribution", attribution.whole.values, packed)
    results, row_groups = each_group(
        model,
        packed,
        lambda evaluator, rows: measure(
            evaluator, packed.values[rows], chosen(attribution.whole, rows)
        ),
    )
    return joined_entries(results, row_groups)


def check_rows(what: str, values: Tensor, packed: PackedInputs) -> None:
    """Raise unless there are as many values as rows of the inputs."""
    require(
        len(values) == len(packed.values),
        f"expected {what} of {len(packed.values)} inputs, as many as there are, got {len(values)}; "
        "pass what was made of these inputs",
    )


def _evaluator(
    model: nn.Module | Evaluator, input_spec: InputSpec, frozen: Mapping[Any, object]
) -> Evaluator:
    if isinstance(model, Evaluator):
        return model.with_model(PackedModel(model.model, input_spec, frozen))
    check_model(model)
    return Evaluator(PackedModel(model, input_spec, frozen))


def target_of(target: Target, rows: Tensor, count: int) -> Target:
    """Return the targets of some of `count` rows."""
    target = read_target(target)
    if len(rows) == count or target is None or isinstance(target, (int, float, str)):
        return cast(Target, target)
    if isinstance(target, Tensor) and not target.ndim:
        return target
    if len(target) != count:
        raise UnilensError(
            f"expected `target` of shape ({count},), got ({len(target)},); pass one index for all, "
            "or one per input"
        )
    return target[rows] if isinstance(target, Tensor) else [target[row] for row in rows.tolist()]


def joined(attributions: Sequence[Attribution], rows: Sequence[Tensor]) -> Attribution:
    """Return the attributions of groups of inputs as one, every input in its row."""
    if len(attributions) == 1:
        return attributions[0]
    first = attributions[0]
    columns = {
        name: joined_rows([getattr(group, name) for group in attributions], rows)
        for name in _PER_INPUT
    }
    seconds = sum(cast(float, group.provenance.get("seconds", 0.0)) for group in attributions)
    return dataclasses.replace(
        first,
        **columns,
        trace=_joined_trace([group.trace for group in attributions], rows),
        record=joined_entries([group.record for group in attributions], rows),
        measured=joined_entries([group.measured for group in attributions], rows),
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
        name: joined_rows([group[name] for group in entries], rows)
        for name, value in entries[0].items()
        if all(name in group and group[name].shape[1:] == value.shape[1:] for group in entries)
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

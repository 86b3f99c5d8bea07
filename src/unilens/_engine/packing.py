"""Several inputs packed into one tensor, and the model that unpacks them.

A model of several named inputs is explained as one of a single tensor `(B, D)`, in which the values
of all inputs follow each other. So every method, path, search and norm works on them with no code
of its own; only what depends on an input's shape, such as a blur, is applied to each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..errors import NotApplicableError, UnilensError, require
from .plan_cache import Adapter

Name = str | int
MultiInputs = Mapping[str, Any] | tuple[Any, ...]
"""What a model is called with: a mapping by keyword, a tuple by position; each `(B, *S)`."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """An argument of the model that stays fixed and is never attributed.

    Integers and truths stay fixed without it; wrap floating-point ones, such as a mask, in this.

    Args:
        value: a tensor with one row per input, a tensor without dimensions, or anything else,
            which all inputs share.
    """

    value: object


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where each input lies in a packed tensor `(..., D)`.

    Attributes:
        shapes: the shape `*S` of each input that is attributed, by name or position, in order.
        arguments: the names of all inputs, frozen ones included.
        named: whether the inputs are a mapping.
    """

    shapes: Mapping[Name, torch.Size]
    arguments: tuple[Name, ...]
    named: bool

    @property
    def size(self) -> int:
        """D, the number of values of all inputs in one row."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def split(self, values: Tensor) -> dict[Name, Tensor]:
        """Return the inputs `(..., *S)` of packed values `(..., D)`, by name."""
        inputs, start = {}, 0
        for name, shape in self.shapes.items():
            end = start + math.prod(shape)
            # Contiguous, since products round otherwise where rows lie apart, as in a batch; and no
            # loop over tensors, so that it can be traced.
            flat = values[..., start:end].contiguous()
            inputs[name] = flat.unflatten(-1, shape) if shape else flat.squeeze(-1)
            start = end
        return inputs

    def concat(self, inputs: Mapping[Name, Tensor]) -> Tensor:
        """Return inputs `(..., *S)` packed into one tensor `(..., D)`."""
        return torch.cat(
            [
                inputs[name].reshape(*inputs[name].shape[: inputs[name].ndim - len(shape)], -1)
                for name, shape in self.shapes.items()
            ],
            dim=-1,
        )

    def unpack(self, values: Tensor) -> Any:
        """Return packed values `(..., D)` in the structure of the user's inputs.

        Frozen inputs are left out of a mapping; in a tuple, None stands in their places.
        """
        inputs = self.split(values)
        return dict(inputs) if self.named else tuple(inputs.get(name) for name in self.arguments)

    def read(self, what: str, given: object) -> Tensor:
        """Return tensors `(B, *S)` that a user gave for each input, packed `(B, D)`.

        Args:
            what: the name of what is given, for the message where it does not fit.
            given: a mapping or tuple as `unpack` gives it.
        """
        items = _items(given) if isinstance(given, (Mapping, tuple)) else {}
        tensors = {name: value for name, value in items.items() if name in self.shapes}
        shapes = {
            name: tuple(value.shape[1:]) if isinstance(value, Tensor) else type(value).__name__
            for name, value in tensors.items()
        }
        if shapes != {name: tuple(shape) for name, shape in self.shapes.items()}:
            raise UnilensError(
                f"expected {what} for the inputs {self}, each (B, *S), got "
                f"{shapes or type(given).__name__}"
            )
        rows = {name: len(value) for name, value in tensors.items()}
        require(
            len(set(rows.values())) == 1,
            f"expected {what} with as many rows for every input, got {rows}; pass one per input",
        )
        return self.concat(tensors)

    def map(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Apply a function to every input in its own shape; see `map_inputs`."""
        results = {}
        for name, value in self.split(values).items():
            try:
                results[name] = function(value)
            except UnilensError as error:
                reraise_for_input(name, error)
        return self.concat(results)

    def __str__(self) -> str:
        return ", ".join(f"{name} {tuple(shape)}" for name, shape in self.shapes.items())


@runtime_checkable
class _HasInputSpec(Protocol):
    """A model that may have several inputs, packed; an `Evaluator`, for one."""

    input_spec: object


def map_inputs(model: object, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Apply a function that depends on an input's shape to each of several inputs, or to one.

    Args:
        model: an `Evaluator`, which knows where the inputs lie if there are several.
        function: from `(B, *S)` to `(..., *S)`.
        values: `(B, D)` of several inputs, `(B, *S)` of one.

    Returns:
        `(..., D)` or `(..., *S)`.
    """
    input_spec = model.input_spec if isinstance(model, _HasInputSpec) else None
    if not isinstance(input_spec, InputSpec) or values.shape[1:] != (input_spec.size,):
        return function(values)
    return input_spec.map(function, values)


def reraise_for_input(name: Name, error: UnilensError) -> NoReturn:
    """Raise the error again with the name of the input that it is about."""
    kind = NotApplicableError if isinstance(error, NotApplicableError) else UnilensError
    raise kind(f"in input {name!r}: {error}") from error


class PackedModel(Adapter):
    """A model of several inputs as one of a single tensor `(M, D)`.

    Args:
        model: called with the inputs, by keyword or position.
        input_spec: where they lie.
        frozen: the arguments that stay fixed; tensors with dimensions have a single row.
    """

    def __init__(
        self, model: nn.Module, input_spec: InputSpec, frozen: Mapping[Name, object]
    ) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.input_spec, self.frozen = model, input_spec, dict(frozen)

    @property
    def arrangement(self) -> Hashable:
        """Where the inputs lie, and the frozen ones: of tensors the shape and dtype."""
        frozen = (
            (name, value.shape, value.dtype) if isinstance(value, Tensor) else (name, _key(value))
            for name, value in self.frozen.items()
        )
        return str(self.input_spec), self.input_spec.arguments, self.input_spec.named, tuple(frozen)

    def forward(self, values: Tensor) -> Any:
        """Return what the model gives for packed values `(M, D)`."""
        frozen = {name: _expand_rows(value, values) for name, value in self.frozen.items()}
        inputs: dict[Any, Any] = {**self.input_spec.split(values), **frozen}
        if self.input_spec.named:
            return self.model(**inputs)
        return self.model(*(inputs[name] for name in self.input_spec.arguments))


def _key(value: object) -> Hashable:
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def _expand_rows(value: object, values: Tensor) -> object:
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    return value.expand(values.shape[0], *value.shape[1:]).clone()


@dataclass(frozen=True, slots=True)
class PackedInputs:
    """Several inputs of a user, packed.

    Attributes:
        input_spec: where each input lies.
        values: `(B, D)`.
        frozen: the arguments that are not attributed, by name.
    """

    input_spec: InputSpec
    values: Tensor
    frozen: Mapping[Name, object]

    def groups(self) -> Iterator[tuple[Tensor, dict[Name, object]]]:
        """Yield the rows `(m,)` with equal frozen inputs, and these inputs."""
        groups: dict[tuple[bytes, ...], list[int]] = {}
        for row in range(len(self.values)):
            groups.setdefault(tuple(self._frozen_bytes(row)), []).append(row)
        for rows in groups.values():
            frozen = {
                name: value[rows[:1]] if isinstance(value, Tensor) and value.ndim else value
                for name, value in self.frozen.items()
            }
            yield torch.tensor(rows, device=self.values.device), frozen

    def _frozen_bytes(self, row: int) -> Iterator[bytes]:
        for value in self.frozen.values():
            if isinstance(value, Tensor) and value.ndim:
                flat = value[row].detach().cpu().contiguous().flatten()
                yield flat.view(torch.uint8).numpy().tobytes()


def pack(inputs: MultiInputs) -> PackedInputs:
    """Return several inputs as one tensor, and the frozen ones among them.

    Raises:
        UnilensError: an input is no tensor, has no rows or another number of them than the others,
            or all of them are frozen.
    """
    given = _items(inputs)
    attributed = {name: value for name, value in given.items() if _is_attributed(value)}
    require(
        bool(attributed),
        "expected at least one input with floating-point values to explain, got "
        f"{', '.join(map(str, given)) or 'no inputs'}; convert it with .float()",
    )
    frozen = {name: _unwrap(value) for name, value in given.items() if name not in attributed}
    rows = {
        name: value for name, value in frozen.items() if isinstance(value, Tensor) and value.ndim
    }
    _check_rows({**attributed, **rows})
    input_spec = InputSpec(
        {name: value.shape[1:] for name, value in attributed.items()},
        tuple(given),
        isinstance(inputs, Mapping),
    )
    return PackedInputs(input_spec, input_spec.concat(attributed), frozen)


def _items(inputs: MultiInputs) -> dict[Name, Any]:
    items = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return dict(items)


def _unwrap(given: object) -> object:
    value = given.value if isinstance(given, Frozen) else given
    return value.detach() if isinstance(value, Tensor) else value


def _is_attributed(value: object) -> bool:
    if isinstance(value, (Frozen, bool, int, str, type(None))):
        return False
    require(
        isinstance(value, Tensor),
        f"expected every input to be a tensor (B, *S), got {type(value).__name__}; convert it with "
        "torch.as_tensor, or wrap what is no input in unilens.multi_input.Frozen",
    )
    assert isinstance(value, Tensor)
    return value.is_floating_point()


def _check_rows(inputs: Mapping[Name, Any]) -> None:
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    rows = {shape[0] if shape else None for shape in shapes.values()}
    require(
        len(rows) == 1 and None not in rows,
        f"expected tensors (B, *S) with one row per input, all of the same B, got {shapes}; repeat "
        "what all rows share, or wrap it in unilens.multi_input.Frozen without dimensions",
    )
    require(
        0 not in rows,
        f"expected tensors (B, *S) with at least one input, got {shapes}; leave empty batches out",
    )
    devices: Sequence[str] = sorted({str(value.device) for value in inputs.values()})
    require(
        len(devices) == 1,
        f"expected all inputs on one device, got {', '.join(devices)}; move them with .to(...)",
    )

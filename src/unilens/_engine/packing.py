"""Several inputs as one: parts side by side in a tensor, and the model that takes them apart.

A model of several inputs is explained as one of a single tensor `(B, D)`, in which the parts lie
side by side. So every method, path, search and norm works on them with no code of its own; only
what asks for an input's shape, such as a blur, is applied part by part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ..errors import NotApplicableError, UnilensError, require
from .plans import Adapter

Name = str | int
Parts = Mapping[str, Any] | tuple[Any, ...]
"""What a model is called with: a mapping by keyword, a tuple by position; every part `(B, *S)`."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """An argument of the model that is held fixed and never attributed.

    Integers and truths are held by themselves; wrap floating-point ones, such as a mask, in this.

    Args:
        value: a tensor with one row per input, a tensor without dimensions, or anything else,
            which all inputs share.
    """

    value: object


@dataclass(frozen=True, slots=True)
class InputSpec:
    """Where each part lies in a tensor `(..., D)`.

    Attributes:
        shapes: the shape `*S` of each part that is attributed, by name or position, in order.
        arguments: the names of all parts, those that are held among them.
        named: whether the parts are a mapping.
    """

    shapes: Mapping[Name, torch.Size]
    arguments: tuple[Name, ...]
    named: bool

    @property
    def size(self) -> int:
        """D, the number of values of all parts of one input."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def split(self, values: Tensor) -> dict[Name, Tensor]:
        """Return the parts `(..., *S)` of values `(..., D)`, by name."""
        parts, begins = {}, 0
        for name, shape in self.shapes.items():
            ends = begins + math.prod(shape)
            # Contiguous, since products round otherwise where rows lie apart, as in a batch; and no
            # loop over tensors, so that it can be traced.
            part = values[..., begins:ends].contiguous()
            parts[name] = part.unflatten(-1, shape) if shape else part.squeeze(-1)
            begins = ends
        return parts

    def concat(self, parts: Mapping[Name, Tensor]) -> Tensor:
        """Return parts `(..., *S)` side by side `(..., D)`."""
        return torch.cat(
            [
                parts[name].reshape(*parts[name].shape[: parts[name].ndim - len(shape)], -1)
                for name, shape in self.shapes.items()
            ],
            dim=-1,
        )

    def unpack(self, values: Tensor) -> Any:
        """Return values `(..., D)` as the user gave the parts.

        Parts that are held are left out of a mapping; in a tuple, None stands in their places.
        """
        parts = self.split(values)
        return dict(parts) if self.named else tuple(parts.get(name) for name in self.arguments)

    def read(self, what: str, given: object) -> Tensor:
        """Return tensors `(B, *S)` that a user gave for every part side by side `(B, D)`.

        Args:
            what: the name of what is given, for the message where it does not fit.
            given: a mapping or tuple as `unpack` gives it.
        """
        items = _items(given) if isinstance(given, (Mapping, tuple)) else {}
        parts = {name: value for name, value in items.items() if name in self.shapes}
        came = {
            name: tuple(value.shape[1:]) if isinstance(value, Tensor) else type(value).__name__
            for name, value in parts.items()
        }
        if came != {name: tuple(shape) for name, shape in self.shapes.items()}:
            raise UnilensError(
                f"expected {what} for the parts {self}, each (B, *S), got "
                f"{came or type(given).__name__}"
            )
        rows = {name: len(value) for name, value in parts.items()}
        require(
            len(set(rows.values())) == 1,
            f"expected {what} with as many rows in every part, got {rows}; pass one row per input",
        )
        return self.concat(parts)

    def map(self, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
        """Apply a function to every part with its own shape; see `by_part`."""
        parts = {}
        for name, part in self.split(values).items():
            try:
                parts[name] = function(part)
            except UnilensError as error:
                in_part(name, error)
        return self.concat(parts)

    def __str__(self) -> str:
        return ", ".join(f"{name} {tuple(shape)}" for name, shape in self.shapes.items())


def by_part(model: object, function: Callable[[Tensor], Tensor], values: Tensor) -> Tensor:
    """Apply a function that depends on the shape of an input to every part, or to the one tensor.

    Args:
        model: an `Evaluator`, which knows the input_spec where inputs have parts.
        function: from `(B, *S)` to `(..., *S)`.
        values: `(B, D)`, or `(B, *S)` where there are no parts.

    Returns:
        `(..., D)` or `(..., *S)`.
    """
    input_spec = getattr(model, "input_spec", None)
    if not isinstance(input_spec, InputSpec) or values.shape[1:] != (input_spec.size,):
        return function(values)
    return input_spec.map(function, values)


def in_part(name: Name, error: UnilensError) -> NoReturn:
    """Raise the error again with the name of the part that it is about."""
    kind = NotApplicableError if isinstance(error, NotApplicableError) else UnilensError
    raise kind(f"in part {name!r}: {error}") from error


class PackedModel(Adapter):
    """A model of several inputs as one of a single tensor `(M, D)`.

    Args:
        model: called with the parts, by keyword or position.
        input_spec: where they lie.
        held: the arguments that stay as they are; tensors with dimensions have a single row.
    """

    def __init__(
        self, model: nn.Module, input_spec: InputSpec, held: Mapping[Name, object]
    ) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.input_spec, self.held = model, input_spec, dict(held)

    @property
    def arrangement(self) -> Hashable:
        """Where the parts lie, and what is held fixed: of tensors their shapes."""
        held = (
            (name, value.shape, value.dtype) if isinstance(value, Tensor) else (name, _known(value))
            for name, value in self.held.items()
        )
        return str(self.input_spec), self.input_spec.arguments, self.input_spec.named, tuple(held)

    @property
    def class_index(self) -> Any:
        """What finds a class by its label, where the model has labels."""
        return self.model.class_index

    def forward(self, values: Tensor) -> Any:
        """Return what the model gives for the parts of values `(M, D)`."""
        held = {name: _repeated(value, values) for name, value in self.held.items()}
        given: dict[Any, Any] = {**self.input_spec.split(values), **held}
        if self.input_spec.named:
            return self.model(**given)
        return self.model(*(given[name] for name in self.input_spec.arguments))


def _known(value: object) -> Hashable:
    return value if isinstance(value, (bool, int, float, str, type(None))) else id(value)


def _repeated(value: object, values: Tensor) -> object:
    if not isinstance(value, Tensor) or not value.ndim:
        return value
    return value.expand(values.shape[0], *value.shape[1:]).clone()


@dataclass(frozen=True, slots=True)
class PackedInputs:
    """What a user gave in parts, laid out.

    Attributes:
        input_spec: where the parts lie.
        values: `(B, D)`.
        held: the arguments that are not attributed, by name.
    """

    input_spec: InputSpec
    values: Tensor
    held: Mapping[Name, object]

    def groups(self) -> Iterator[tuple[Tensor, dict[Name, object]]]:
        """Yield the rows `(m,)` of inputs that hold the same, and what they hold."""
        rows: dict[tuple[bytes, ...], list[int]] = {}
        for row in range(len(self.values)):
            rows.setdefault(tuple(self._content(row)), []).append(row)
        for those in rows.values():
            held = {
                name: value[those[:1]] if isinstance(value, Tensor) and value.ndim else value
                for name, value in self.held.items()
            }
            yield torch.tensor(those, device=self.values.device), held

    def _content(self, row: int) -> Iterator[bytes]:
        for value in self.held.values():
            if isinstance(value, Tensor) and value.ndim:
                one = value[row].detach().cpu().contiguous().flatten()
                yield one.view(torch.uint8).numpy().tobytes()


def pack(inputs: Parts) -> PackedInputs:
    """Return inputs that came in parts as one tensor, with what is held fixed.

    Raises:
        UnilensError: a part is no tensor, has no rows or another number of them than the others, or
            all of them are held.
    """
    given = _items(inputs)
    parts = {name: value for name, value in given.items() if _attributed(value)}
    require(
        bool(parts),
        "expected at least one part with floating-point values to explain, got "
        f"{', '.join(map(str, given)) or 'no parts'}; convert it with .float()",
    )
    held = {name: _value(one) for name, one in given.items() if name not in parts}
    rows = {name: one for name, one in held.items() if isinstance(one, Tensor) and one.ndim}
    _check_rows({**parts, **rows})
    input_spec = InputSpec(
        {name: part.shape[1:] for name, part in parts.items()},
        tuple(given),
        isinstance(inputs, Mapping),
    )
    return PackedInputs(input_spec, input_spec.concat(parts), held)


def _items(inputs: Parts) -> dict[Name, Any]:
    items = inputs.items() if isinstance(inputs, Mapping) else enumerate(inputs)
    return dict(items)


def _value(one: object) -> object:
    value = one.value if isinstance(one, Frozen) else one
    return value.detach() if isinstance(value, Tensor) else value


def _attributed(value: object) -> bool:
    if isinstance(value, (Frozen, bool, int, str, type(None))):
        return False
    require(
        isinstance(value, Tensor),
        f"expected every part to be a tensor (B, *S), got {type(value).__name__}; convert it with "
        "torch.as_tensor, or wrap what is no input in unilens.multi_input.Frozen",
    )
    assert isinstance(value, Tensor)
    return value.is_floating_point()


def _check_rows(parts: Mapping[Name, Any]) -> None:
    came = {name: tuple(part.shape) for name, part in parts.items()}
    rows = {shape[0] if shape else None for shape in came.values()}
    require(
        len(rows) == 1 and None not in rows,
        f"expected parts (B, *S) with one row per input, all of the same B, got {came}; repeat "
        "what all inputs share, or wrap it in unilens.multi_input.Frozen without dimensions",
    )
    require(
        0 not in rows,
        f"expected parts (B, *S) with at least one input, got {came}; leave empty batches out",
    )
    devices: Sequence[str] = sorted({str(part.device) for part in parts.values()})
    require(
        len(devices) == 1,
        f"expected all parts on one device, got {', '.join(devices)}; move them with .to(...)",
    )

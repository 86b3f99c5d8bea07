"""Scores of whatever a model returns: one number per input, or logits of the input's classes.

A score of a model's whole output is a function from that output to values `(M,)`, one for each of
the M inputs of the pass; the ready ones in this package derive from `OutputScore`. A model with
such a score is explained as one whose only output is the score.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .._validation.settings import Settings
from ..errors import UnilensError, require


class OutputScore(Settings, ABC):
    """A score of whatever a model returns. A subclass implements `__call__`.

    Settings that differ by input, such as a mask for each image, have one entry per input.

    Attributes:
        has_classes: whether there are `class_logits`.
    """

    has_classes: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the values `(M,)` of what the model returns for M inputs, one row per input."""

    def prepared(self, outputs: Callable[[], Any], model: nn.Module) -> OutputScore:
        """Return the score with what it takes from the model, for all inputs alike.

        Args:
            outputs: gives what the model returns at the first input alone.
            model: the user's.
        """
        return self

    def for_input(self, row: int, count: int, outputs: Callable[[], Any]) -> OutputScore:
        """Return the score of one input; itself where all inputs share it.

        Args:
            row: of the input in the batch.
            count: how many inputs the batch has.
            outputs: gives what the model returns at this input alone.
        """
        return self

    def class_logits(self, outputs: Any) -> Tensor:
        """Return logits `(M, K)` of classes, of which the score is one.

        For scores with classes; UNI unlearns the cross-entropy of that class, and of other scores
        the score itself.
        """
        raise NotImplementedError

    @property
    def class_index(self) -> int:
        """The index of the score among `class_logits`."""
        return 0

    @property
    def kind(self) -> Hashable:
        """What decides how a model with the score can be run: the settings that are no tensors."""
        return type(self), tuple(
            tuple(value.shape) if isinstance(value, Tensor) else repr(value)
            for value in vars(self).values()
        )


@dataclass(frozen=True, eq=False)
class FunctionScore(OutputScore):
    """A user's function from what the model returns to values `(M,)`."""

    function: Callable[[Any], Any]

    @property
    def kind(self) -> Hashable:
        """The function's code: one that is made anew for each call is the same kind."""
        code: Hashable = getattr(self.function, "__code__", None)
        return code or repr(type(self.function))

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the function's values."""
        values = self.function(outputs)
        if not isinstance(values, Tensor):
            raise UnilensError(
                "expected score to give a tensor of values, one per input, got "
                f"{type(values).__name__}; return a tensor of shape (B,)"
            )
        return values


def as_output_score(score: object) -> OutputScore | None:
    """Return a score of whatever the model returns; None for scores of a class.

    A function of one argument is one of what the model returns, a function of two one of outputs
    `(M, K)` and target `(M,)`.
    """
    if isinstance(score, OutputScore):
        return score
    if isinstance(score, (str, type)) or not callable(score):
        return None
    return FunctionScore(score) if _arguments(score) == 1 else None


def _arguments(function: Callable[..., Any]) -> int:
    """Return how many positional arguments a score takes; 2 where it has no signature."""
    called = function.forward if isinstance(function, nn.Module) else function
    try:
        parameters = list(inspect.signature(called).parameters.values())
    except (TypeError, ValueError):
        return 2
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 2
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    if any(parameter.name == "target" for parameter in positional):
        return 2
    return sum(parameter.default is parameter.empty for parameter in positional)


def entry_of(
    outputs: Any, names: Sequence[str], dims: tuple[int, ...], key: str | int | None, what: str
) -> Tensor:
    """Return the tensor with a number of dimensions among what a model returns.

    Args:
        outputs: a tensor, mapping, sequence, or an object with attributes.
        names: of entries that are looked for, the first that exists counts.
        dims: numbers of dimensions that it can have.
        key: the entry's name or position; None to look for it.
        what: of the score, for the message.

    Raises:
        UnilensError: there is none, or a sequence has several.
    """
    entries = dict(entries_of(outputs))
    if key is not None:
        require(
            isinstance(key, (str, int)) and key in entries,
            f"expected output to be one of what the model returns, "
            f"{', '.join(map(str, entries)) or 'no tensors'}, got {key!r}",
        )
        chosen = [entries[key]]
    elif isinstance(outputs, Tensor):
        chosen = [outputs]
    else:
        fits = {name: value for name, value in entries.items() if value.ndim in dims}
        chosen = [fits[name] for name in names if name in fits][:1] or list(fits.values())
    if len(chosen) == 1 and chosen[0].ndim in dims:
        return chosen[0]
    found = ", ".join(f"{name} {tuple(value.shape)}" for name, value in entries.items())
    expected = " or ".join(map(str, dims))
    raise UnilensError(
        f"expected one output with {expected} dimensions for {what}, got "
        f"{found or type(outputs).__name__}; name it, as by output="
        f"{next(iter(entries), 'logits')!r}"
    )


def entries_of(outputs: Any) -> Iterator[tuple[str | int, Tensor]]:
    """Yield the tensors among what a model returns, by name or position."""
    if isinstance(outputs, Tensor):
        pairs: Any = [(0, outputs)]
    elif isinstance(outputs, Mapping):
        pairs = outputs.items()
    elif isinstance(outputs, tuple) and hasattr(outputs, "_fields"):
        pairs = zip(outputs._fields, outputs, strict=True)
    elif isinstance(outputs, (tuple, list)):
        pairs = enumerate(outputs)
    else:
        pairs = getattr(outputs, "__dict__", {}).items()
    yield from ((name, value) for name, value in pairs if isinstance(value, Tensor))


def row_of(name: str, setting: Tensor, row: int, count: int, dims: int) -> Tensor:
    """Return a setting of `dims` dimensions for one input, where it has an entry for each.

    Raises:
        UnilensError: it has entries for another number of inputs.
    """
    if setting.ndim == dims or (setting.ndim == dims + 1 and len(setting) == 1):
        return setting
    require(
        setting.ndim == dims + 1 and len(setting) == count,
        f"expected {name} with {_dimensions(dims)}, or with one entry for each of {count} inputs, "
        f"got shape {tuple(setting.shape)}",
    )
    return setting[row]


def per_row(name: str, setting: Tensor, count: int, dims: int) -> Tensor:
    """Return a setting with an entry for each of `count` rows, or one for all: `(1, ...)`."""
    several = setting if setting.ndim > dims else setting.unsqueeze(0)
    require(
        several.ndim == dims + 1 and len(several) in (1, count),
        f"expected {name} with {_dimensions(dims)}, or with one entry for each of {count} inputs, "
        f"got shape {tuple(setting.shape)}",
    )
    return several


def _dimensions(count: int) -> str:
    return f"{count} dimension{'s' * (count > 1)}"


def check_values(values: object, count: int) -> Tensor:
    """Return values `(M,)` of a score; raise where they have another shape."""
    shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
    if isinstance(values, Tensor) and shape == () and count == 1:
        return values.reshape(1)
    if not isinstance(values, Tensor) or shape != (count,):
        raise UnilensError(
            f"expected score to give values of shape ({count},), one per input, got {shape}; "
            "return one number per row, as outputs[:, 0]"
        )
    return values


@torch.inference_mode(False)
def as_tensor(name: str, value: object) -> Tensor:
    """Return a setting as a tensor of its own, detached."""
    try:
        tensor = torch.as_tensor(value).detach()
    except (TypeError, ValueError, RuntimeError):
        tensor = None
    if tensor is None or tensor.layout != torch.strided or tensor.is_complex():
        actual = type(value).__name__ if tensor is None else f"{tensor.dtype}, {tensor.layout}"
        raise UnilensError(
            f"expected {name} to be a dense tensor of numbers, got {actual}; pass real values"
        )
    return tensor.clone()


def as_floats(values: Tensor) -> Tensor:
    """Return floating-point values as they are, others in torch's default dtype."""
    return values if values.is_floating_point() else values.to(torch.get_default_dtype())


def at_least_float32(values: Tensor) -> Tensor:
    """Return values in float32 or wider, in which sums of many do not overflow."""
    return values.to(torch.promote_types(values.dtype, torch.float32))

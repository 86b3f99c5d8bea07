"""A model with a score of what it returns, as a model whose only output is the score.

Scores with classes have the logits of these as outputs.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._engine.guard import USER_MODULE, Guard
from .._engine.memory import out_of_memory
from .._engine.packing import Frozen, MultiInputs
from .._engine.plan_cache import Adapter
from .._engine.plans import MODEL_ERRORS
from ..errors import UnilensError, first_line
from ..outputs import OutputSpec
from .base import OutputScore, check_values


class ScoredModel(Adapter):
    """A user's model whose outputs are a score `(M, 1)`, or the logits `(M, K)` of its classes."""

    def __init__(self, model: nn.Module, score: OutputScore) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.score = model, score
        kind = "logits" if score.has_classes else "regression"
        self.output_spec = OutputSpec(kind, "score")

    @property
    def arrangement(self) -> Hashable:
        """The kind of the score: a mask or a box of another input is like another input."""
        return self.score.kind

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the score of what the model returns."""
        outputs = self.model(*args, **kwargs)
        values = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        count = next((len(value) for value in values if value.ndim), 1)
        try:
            if self.score.has_classes:
                return self.score.class_logits(outputs)
            return check_values(self.score(outputs), count).unsqueeze(1)
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            raise UnilensError(
                f"the score could not take what the model returns, {_described(outputs)}: "
                f"{type(error).__name__}: {first_line(error)}"
            ) from error


@dataclass(frozen=True, slots=True)
class BoundScore:
    """A model with the score of some inputs.

    Attributes:
        evaluator: of the model whose outputs are the score.
        target: the index of the score among the outputs.
        rows: `(m,)`, the numbers of these inputs.
    """

    evaluator: Evaluator
    target: int
    rows: Tensor


@torch.inference_mode(False)
def bind(
    model: nn.Module | Evaluator, inputs: Tensor | MultiInputs, score: OutputScore
) -> list[BoundScore]:
    """Return a model with each different score of what it returns at some inputs.

    Args:
        model: the user's; it runs at single inputs where the score depends on what it returns.
        inputs: `(B, *S)` on the model's device, in the user's order of axes; or several.
        score: of what the model returns.

    Raises:
        UnilensError: the score's settings do not fit the inputs.
    """
    evaluator = Evaluator.of(model)
    module = evaluator.model
    runs = [
        functools.cache(functools.partial(_raw_outputs, evaluator, arguments))
        for arguments in _rows(inputs)
    ]
    score = score.prepared(runs[0], module)
    rows_of: dict[OutputScore, list[int]] = {}
    for row, outputs in enumerate(runs):
        rows_of.setdefault(score.for_input(row, len(runs), outputs), []).append(row)
        outputs.cache_clear()
    return [
        BoundScore(
            evaluator.with_model(ScoredModel(module, own)), own.class_index, torch.tensor(numbers)
        )
        for own, numbers in rows_of.items()
    ]


def _rows(inputs: Tensor | MultiInputs) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the arguments of the model for each input alone."""
    named = isinstance(inputs, Mapping)
    several = (inputs,) if isinstance(inputs, Tensor) else inputs
    given = dict(inputs) if named else dict(enumerate(several))
    bare = {name: _bare(value) for name, value in given.items()}
    tensors = [value for value in bare.values() if isinstance(value, Tensor) and value.ndim]
    for row in range(len(tensors[0]) if tensors else 0):
        single = {name: row_of_value(value, torch.tensor([row])) for name, value in bare.items()}
        args = () if named else tuple(single.values())
        yield args, cast(dict[str, Any], single if named else {})


def rows_of_inputs(inputs: Tensor | MultiInputs, rows: Tensor) -> Any:
    """Return some of the inputs, in their structure; frozen arguments stay frozen."""
    if isinstance(inputs, Tensor):
        return inputs[rows]
    if isinstance(inputs, Mapping):
        return {name: row_of_value(value, rows) for name, value in inputs.items()}
    return tuple(row_of_value(value, rows) for value in inputs)


def row_of_value(value: Any, rows: Tensor) -> Any:
    """Return some rows of an argument of the model; what all inputs share stays as it is."""
    if isinstance(value, Frozen):
        return Frozen(row_of_value(value.value, rows))
    return value[rows] if isinstance(value, Tensor) and value.ndim else value


def _bare(value: Any) -> Any:
    return value.value if isinstance(value, Frozen) else value


def _raw_outputs(evaluator: Evaluator, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Any:
    """Return what the user's model returns at one input; what a call changes in it is put back."""
    args, kwargs = arguments

    def read(value: Any) -> Any:
        floating = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(evaluator.dtype).clone() if floating and evaluator.dtype else value

    try:
        with USER_MODULE, Guard(evaluator.model), torch.no_grad():
            named = {name: read(value) for name, value in kwargs.items()}
            return evaluator.model(*map(read, args), **named)
    except MODEL_ERRORS as error:
        if isinstance(error, UnilensError) or out_of_memory(error):
            raise
        raise UnilensError(f"the model could not take the inputs: {first_line(error)}") from error


def _described(outputs: Any) -> str:
    """Return what a model returns, for a message."""
    if isinstance(outputs, Tensor):
        return f"a tensor {tuple(outputs.shape)}"
    if isinstance(outputs, Mapping):
        return f"{type(outputs).__name__} with keys {', '.join(map(str, outputs))}"
    return type(outputs).__name__

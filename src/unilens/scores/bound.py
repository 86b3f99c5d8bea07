"""A model with a score of what it returns, as a model whose outputs are the score's values.

The outputs have a column for each different score: one where all inputs share it, else one per
input, and the target of an input is its own column. Scores with classes have a block of columns.
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
from ..errors import UnilensError, first_line, require
from ..outputs import OutputSpec
from .base import OutputScore, check_values

MOST_SCORES = 64
"""Different scores of one batch; larger batches are explained in several."""


class ScoredModel(Adapter):
    """A user's model whose outputs are scores `(M, R)`, or logits of R blocks `(M, R K)`."""

    def __init__(
        self, model: nn.Module, scores: tuple[OutputScore, ...], output_spec: OutputSpec
    ) -> None:
        super().__init__()
        self.training = model.training
        self.model, self.scores, self.output_spec = model, scores, output_spec

    @property
    def arrangement(self) -> Hashable:
        """The scores, each by its identity."""
        return self.scores

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the columns of what the model returns."""
        outputs = self.model(*args, **kwargs)
        values = (value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))
        count = next((len(value) for value in values if value.ndim), 1)
        return torch.cat([_columns(score, outputs, count) for score in self.scores], 1)


def _columns(score: OutputScore, outputs: Any, count: int) -> Tensor:
    """Return the columns `(M, K)` of one score: its classes' logits, or its values."""
    if score.has_classes:
        return score.class_logits(outputs)
    return check_values(score(outputs), count).unsqueeze(1)


@dataclass(frozen=True, slots=True)
class BoundScore:
    """A model with a score of what it returns, for some inputs.

    Attributes:
        evaluator: of the model whose outputs are the score's columns.
        target: `(B,)`, the column of each input.
        score: as the user gave it.
        width: columns of each block; 1 for scores without classes.
    """

    evaluator: Evaluator
    target: Tensor
    score: OutputScore
    width: int

    def own_outputs(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return each input's own block `(B, width)` of outputs, and its target `(B,)` there."""
        target = self.target.to(outputs.device)
        blocks = outputs.unflatten(-1, (-1, self.width))
        rows = torch.arange(len(outputs), device=outputs.device)
        return blocks[rows, target // self.width], target % self.width


def bind(
    model: nn.Module | Evaluator, inputs: Tensor | MultiInputs, score: OutputScore
) -> BoundScore:
    """Return a model with a score of what it returns at these inputs.

    Args:
        model: the user's; it runs at single inputs where the score depends on what it returns.
        inputs: `(B, *S)` on the model's device, in the user's order of axes; or several.
        score: of what the model returns.

    Raises:
        UnilensError: the score's settings do not fit the inputs.
    """
    evaluator = Evaluator.of(model)
    module, rows = evaluator.model, list(_rows(inputs))
    runs = [functools.cache(functools.partial(_raw_outputs, evaluator, row)) for row in rows]
    each = [score.for_input(row, len(rows), run, module) for row, run in enumerate(runs)]
    distinct = list(dict.fromkeys(each))
    require(
        len(distinct) <= MOST_SCORES,
        f"expected at most {MOST_SCORES} inputs with scores of their own, got {len(distinct)}; "
        "explain them in batches",
    )
    classes = each[0].class_logits(runs[0]()).shape[1] if score.has_classes else 0
    kind, blocks = ("logits", len(distinct)) if classes else ("regression", 1)
    spec = OutputSpec(kind, "score", blocks=blocks)
    bound = evaluator.with_model(ScoredModel(module, tuple(distinct), spec))
    width, position = classes or 1, {own: place for place, own in enumerate(distinct)}
    columns = [position[own] * width + own.class_index for own in each]
    return BoundScore(bound, torch.tensor(columns), score, width)


def _rows(inputs: Tensor | MultiInputs) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield the arguments of the model for each input alone."""
    named = isinstance(inputs, Mapping)
    given = (
        dict(inputs)
        if named
        else dict(enumerate((inputs,) if isinstance(inputs, Tensor) else inputs))
    )
    tensors = [
        value for value in map(_bare, given.values()) if isinstance(value, Tensor) and value.ndim
    ]
    for row in range(len(tensors[0]) if tensors else 0):
        single = {name: _row(_bare(value), row) for name, value in given.items()}
        yield (
            (() if named else tuple(single.values())),
            cast(dict[str, Any], single if named else {}),
        )


def _bare(value: Any) -> Any:
    return value.value if isinstance(value, Frozen) else value


def _row(value: Any, row: int) -> Any:
    return value[row : row + 1] if isinstance(value, Tensor) and value.ndim else value


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

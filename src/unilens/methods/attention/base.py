"""The base of attention methods: one recorded pass per input, and a value for each token."""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ..._engine.blocks import Recording, record_blocks
from ..._engine.evaluator import Evaluator
from ..._engine.plans import MODEL_ERRORS
from ..._validation.models import not_differentiable
from ...attribution import Attribution
from ...errors import first_line
from ...explainer import ExplainContext, Method
from ...scores import AnyScore, Score
from ...scores import resolve as resolve_score
from ..cam.grids import check_visible
from .tokens import token_grid, values_at_inputs


class RecordedInput(NamedTuple):
    """The recorded pass of one input.

    Attributes:
        evaluator: runs the model.
        inputs: `(1, *S)`.
        target: `(1,)`.
        score: that is explained.
        recording: of the pass.
    """

    evaluator: Evaluator
    inputs: Tensor
    target: Tensor
    score: Score
    recording: Recording

    def scores(self, outputs: Tensor) -> Tensor:
        """Return the score `(R,)` of outputs `(R, K)`; raise where it has no gradient."""
        with torch.enable_grad():
            values = self.score(outputs, self.target.expand(len(outputs)))
        if not values.requires_grad:
            raise not_differentiable(self.evaluator.model, within="attention")
        return values

    def gradients(
        self, values: Tensor, tensors: Sequence[Tensor], along: Tensor | None = None
    ) -> list[Tensor]:
        """Return gradients in tensors of the pass; zero in those that the values do not use."""
        return gradients(self.evaluator.model, values, tensors, along)


class TokenValues(NamedTuple):
    """A value for each of an input's tokens, `(N,)`, and the rows of the maps they come from."""

    values: Tensor
    rows: str


class AttentionMethod(Method):
    """Base of the methods that read attention weights; a subclass gives a value for each token."""

    reads_axes_from: ClassVar[int] = 3
    name: ClassVar[str]
    score: AnyScore = "logit"

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` unless the model is a transformer whose tokens have places."""
        check_visible(model, inputs, self.name)
        token_grid(model.model, record_blocks(model, inputs[:1]), inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)
        rows = context.evaluator.for_each(
            len(context.inputs), functools.partial(self._explain_row, context, score)
        )
        attribution = Attribution(
            values=torch.cat([values for values, _, _ in rows]),
            target=context.target,
            score=score(context.outputs, context.target),
            outputs=context.outputs,
            complete=self.complete,
        )
        blocks = rows[0][2].blocks
        return attribution.with_provenance(
            blocks=[block.name for block in blocks],
            tokens=blocks[0].token_count,
            rows=[taken for _, taken, _ in rows],
        )

    def _explain_row(
        self, context: ExplainContext, score: Score, row: int
    ) -> tuple[Tensor, str, Recording]:
        """Return the values `(1, *S)` of one input, the rows they come from, and the recording."""
        at = slice(row, row + 1)
        inputs, model = context.inputs[at], context.evaluator
        recording = record_blocks(model, inputs, context.outputs[at])
        recorded = RecordedInput(model, inputs, context.target[at], score, recording)
        by_token = self._by_token(recorded)
        values = values_at_inputs(by_token.values.detach(), model.model, recording, inputs)
        return values, by_token.rows, recording

    @abstractmethod
    def _by_token(self, recorded: RecordedInput) -> TokenValues:
        """Return a value for each token."""


def gradients(
    model: nn.Module, values: Tensor, tensors: Sequence[Tensor], along: Tensor | None = None
) -> list[Tensor]:
    """Return the gradients of the values' sum, or along a direction; the graph is kept.

    They are zero in tensors that the values do not depend on.
    """
    along = torch.ones_like(values) if along is None else along
    try:
        found = torch.autograd.grad(values, tensors, along, allow_unused=True, retain_graph=True)
    except MODEL_ERRORS as error:
        raise not_differentiable(model, first_line(error), "attention") from error
    pairs = zip(found, tensors, strict=True)
    return [torch.zeros_like(tensor) if slope is None else slope for slope, tensor in pairs]

"""One call of a module as a plan says, and what it raises as an error of one line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._validation.models import check_outputs, embedding_hint
from ..errors import UnilensError, first_line
from .batch_norm_gradients import ContiguousBatchNormGradients, has_batch_norms
from .memory import out_of_memory
from .packing import InputSpec, PackedModel
from .plans import MODEL_ERRORS, Plan

Run = Callable[[Tensor], Tensor]
"""One pass of a prepared model: from points `(m, *S)` to logits `(m, K)`."""


class ModelError(UnilensError):
    """What a model raised in a pass."""


class ModelCalls:
    """Calls a model and its copies.

    Args:
        model: the user's, which messages are about.
        on_pass: called with the number of points before each pass.

    Attributes:
        input_spec: where each input lies, for models of several inputs; None for others.
    """

    def __init__(self, model: nn.Module, on_pass: Callable[[int], object] | None) -> None:
        self.input_spec: InputSpec | None = (
            model.input_spec if isinstance(model, PackedModel) else None
        )
        self._model, self._on_pass = model, on_pass
        self._batch_norms = has_batch_norms(model)

    def forward(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        """Return the logits `(m, K)` of one pass, which is reported to `on_pass`."""
        self.report(len(points))
        return self.unreported(module, plan, points)

    def report(self, count: int) -> None:
        """Report a pass of that many points to `on_pass`."""
        if self._on_pass is not None:
            self._on_pass(count)

    def unreported(self, module: nn.Module, plan: Plan, points: Tensor) -> Tensor:
        """Return the logits `(m, K)` of one pass; what a module raises becomes a `UnilensError`."""
        try:
            return self.raw(module, points, plan)
        except MODEL_ERRORS as error:
            if isinstance(error, UnilensError) or out_of_memory(error):
                raise
            raise self.refusal(points, error) from error

    def refusal(self, points: Tensor, error: BaseException) -> UnilensError:
        """Return the error of a model that could not take points `(m, *S)`."""
        what = f"inputs {self.input_spec}"
        if self.input_spec is None:
            what = f"an input of shape {tuple(points.shape[1:])}"
        return ModelError(
            f"the model could not take {what}, {points.dtype}: "
            f"{first_line(error)}{embedding_hint(self._model, error)}"
        )

    def raw(self, module: nn.Module, points: Tensor, plan: Plan) -> Tensor:
        """Return the logits of one pass, in float32 or wider; raise what the module raises."""
        last = plan.channels_last and points.ndim == 4
        # A clone, never the leaf itself: a first layer that works in place may overwrite it.
        given = points.to(plan.dtype).clone(
            memory_format=torch.channels_last if last else torch.contiguous_format
        )
        kind, precision = points.device.type, plan.autocast
        wrong = self._batch_norms and kind == "cpu" and len(points) == 1
        mode = ContiguousBatchNormGradients() if wrong else contextlib.nullcontext()
        with torch.autocast(kind, dtype=precision) if precision else contextlib.nullcontext(), mode:
            outputs = module(given)
        outputs = check_outputs(outputs, len(points))
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))

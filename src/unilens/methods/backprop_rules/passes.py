"""A pass of a model under rules for its activations, and the gradient through it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from ..._engine.activations import ActivationRules, Rule
from ..._engine.calls import Run
from ..._engine.evaluator import Evaluator
from ..._engine.plans import MODEL_ERRORS
from ..._validation.models import not_differentiable
from ...errors import NotApplicableError, first_line


@contextlib.contextmanager
def run_with_rules(
    model: Evaluator, inputs: Tensor, rules: Mapping[str, Rule]
) -> Iterator[tuple[ActivationRules, Run]]:
    """Lend the mode that applies the rules, and a function that runs the model once under them.

    Args:
        model: it is not changed.
        inputs: `(B, *S)`, of the shape of the points to run.
        rules: by the name of an activation's function.

    Raises:
        NotApplicableError: the rules do not reach the model's activations.
    """
    _refuse_unreachable(model, inputs)
    with model.borrowed(inputs) as (module, run):
        names = {submodule: name for name, submodule in module.named_modules()}
        mode = ActivationRules(rules, names)

        def run_under_rules(points: Tensor) -> Tensor:
            with torch.enable_grad(), mode:
                return run(points)

        yield mode, run_under_rules


def _refuse_unreachable(model: Evaluator, inputs: Tensor) -> None:
    """Raise where calls of activations cannot be intercepted."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.model.modules()):
        raise NotApplicableError(
            "rules for activations do not reach into TorchScript; use the model from which it was "
            "made, or method='ig'"
        )
    if model.plan(inputs).reentrant:
        raise NotApplicableError(
            "rules for activations do not reach into reentrant checkpoints; use checkpoint(..., "
            "use_reentrant=False) in the model, or method='ig'"
        )


def input_gradient(model: nn.Module, total: Tensor, points: Tensor) -> Tensor:
    """Return the gradient of a scalar in the points, detached.

    Raises:
        NotApplicableError: the scalar does not depend on the points, or its gradient fails.
    """
    if not total.requires_grad:
        raise not_differentiable(model)
    try:
        (gradient,) = torch.autograd.grad(total, points, allow_unused=True)
    except MODEL_ERRORS as error:
        raise not_differentiable(model, first_line(error)) from error
    if gradient is None:
        raise not_differentiable(model, "outputs that do not depend on them")
    return gradient.detach()

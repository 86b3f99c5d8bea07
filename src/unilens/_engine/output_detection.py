"""What a model's outputs are, detected from its configuration, values and last operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .._ops.random import standard_normal
from ..errors import UnilensError, require
from ..outputs import LOGITS, OutputSpec, sums_to_one, within_unit
from .evaluator import Evaluator


def output_spec(model: Evaluator, inputs: Tensor, outputs: Tensor | None = None) -> OutputSpec:
    """Return what the model's outputs are; detected once per evaluator.

    The user's setting counts first, then the `problem_type` of a Hugging Face configuration, then
    the values, then the last operation. Passes run only where the values could be probabilities:
    at most one with its gradient, and six more points.

    Args:
        model: runs the model.
        inputs: `(B, *S)`.
        outputs: `(B, K)`, at the inputs; None to run a pass.

    Raises:
        UnilensError: the outputs contradict the user's setting, or are log-sigmoids of labels.
    """
    if outputs is None and model.output_spec is not None:
        return model.output_spec
    outputs = (model(inputs) if outputs is None else outputs).detach()
    if model.output_spec is None and outputs.isfinite().all():
        model.output_spec = _detected(model, inputs.detach(), outputs)
    spec = model.output_spec or LOGITS
    spec.check(outputs)
    return spec


def _detected(model: Evaluator, inputs: Tensor, outputs: Tensor) -> OutputSpec:
    several = outputs.shape[-1] > 1
    problem = _problem_type(model.model, outputs.shape[-1])
    if problem == "regression":
        return OutputSpec("regression", "config.problem_type")
    if several and (outputs <= 0).all() and sums_to_one(outputs.exp(), _tolerance(outputs)):
        return OutputSpec("log_probabilities", "values")
    if within_unit(outputs):
        spec = _as_probabilities(model, inputs, outputs)
        if spec is not None:
            return spec
    elif (outputs <= 0).all() and _last_operations(model, inputs) in _LOGARITHMS:
        require(
            not several,
            "expected logits or probabilities, got logarithms of labels' probabilities; return "
            "the logits in their place and pass outputs='multi_label'",
        )
        return OutputSpec("log_probabilities", "last operation")
    if problem == "multi_label_classification":
        return OutputSpec("multi_label", "config.problem_type")
    if problem is not None:
        return OutputSpec("logits", "config.problem_type")
    return LOGITS if several else OutputSpec("logits", "assumed", "one_logit_assumed")


def _as_probabilities(model: Evaluator, inputs: Tensor, outputs: Tensor) -> OutputSpec | None:
    """Return what outputs within [0, 1] are if they are probabilities; None if they are logits."""
    tolerance, elsewhere = _tolerance(outputs), _outputs_elsewhere(model, inputs)
    bounded = within_unit(elsewhere, tolerance)
    sums = outputs.shape[-1] > 1 and sums_to_one(outputs, tolerance)
    if sums and bounded and sums_to_one(elsewhere, tolerance):
        return OutputSpec("probabilities", "values")
    kind = "probabilities" if outputs.shape[-1] == 1 else "multi_label_probabilities"
    last = _last_operations(model, inputs)
    if last and last <= _OTHERS | _ARITHMETIC:
        return None
    if last and last <= (_BOUNDED | _ARITHMETIC if bounded else _BOUNDED):
        return OutputSpec(kind, "last operation")
    if bounded and len(elsewhere):
        return OutputSpec(kind, "assumed", "probabilities_assumed")
    return OutputSpec("logits", "assumed", "logits_assumed") if sums else None


_LOGARITHMS = ({"LogSigmoid"}, {"LogSoftmax"})
_BOUNDED = {"Sigmoid", "Hardsigmoid", "Softmax"}
_OTHERS = {
    *("Addmm", "Bmm", "Convolution", "Elu", "Gelu", "LeakyRelu", "Linear", "Mm", "Pow", "Relu"),
    *("Silu", "Softplus", "Tanh"),
}
"""Operations whose results are no probabilities."""
_ARITHMETIC = {"Add", "Div", "Mean", "Mul", "Neg", "Rsub", "Sub", "Sum"}
_PASSED_ON = {
    *("Alias", "AsStrided", "Cat", "Clone", "Expand", "Permute", "Reshape", "ReshapeAlias"),
    *("Select", "Slice", "Split", "Squeeze", "Stack", "T", "ToCopy", "Transpose", "Unbind"),
    *("Unflatten", "UnsafeView", "Unsqueeze", "View"),
}
"""Operations that pass values on unchanged."""


def _last_operations(model: Evaluator, inputs: Tensor) -> set[str]:
    """Return the model's last operations, by autograd's names; empty where they are unknown.

    Operations that pass values on are skipped; arithmetic is named, and looked through as well.
    """
    names: set[str] = set()

    def note(outputs: Tensor, rows: Tensor) -> Tensor:
        names.update(_operations(outputs.grad_fn))
        return outputs.sum(-1)

    try:
        model.differentiate(inputs[:1].unsqueeze(0), note)
    except (UnilensError, RuntimeError):  # that there is no gradient shows where one is needed
        return set()
    return names


def _operations(last: Any) -> set[str]:
    names, seen, stack = set(), set(), [last]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
        if name in _PASSED_ON | _ARITHMETIC:
            stack += [before for before, _ in node.next_functions]
        if name not in _PASSED_ON | {"AccumulateGrad"}:
            names.add(name)
    return names if names - _ARITHMETIC else set()


def _outputs_elsewhere(model: Evaluator, inputs: Tensor) -> Tensor:
    """Return the outputs `(n, K)` near the first input and far out, where finite and not zero."""
    first = inputs[:1]
    noise = standard_normal(first.shape, torch.Generator().manual_seed(0)).to(first)
    far = [sign * 30 * point for point in (first + noise, noise) for sign in (1, -1)]
    points = [first / 2 + noise / 10, -first - noise, *far]
    try:
        elsewhere = model.outputs(torch.stack(points))[:, 0].detach()
    except (UnilensError, ArithmeticError):  # a model that checks the range of its inputs
        return model(first)[:0]
    return elsewhere[elsewhere.isfinite().all(-1) & elsewhere.any(-1)]


def _problem_type(model: nn.Module, outputs: int) -> str | None:
    """Return the `problem_type` of a Hugging Face configuration for this number of outputs."""
    for module in model.modules():
        config = getattr(module, "config", None)
        problem = getattr(config, "problem_type", None)
        if isinstance(problem, str) and getattr(config, "num_labels", None) == outputs:
            return problem
    return None


def _tolerance(outputs: Tensor) -> float:
    """Return how far sums of probabilities are off 1, by the precision of the outputs."""
    for dtype in (torch.bfloat16, torch.float16):
        if (outputs.to(dtype) == outputs).all():
            return 4 * torch.finfo(dtype).eps
    return 1e-4

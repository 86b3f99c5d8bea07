"""What a model's outputs are: logits, probabilities, labels that go together, or plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import NotApplicableError, UnilensError, require
from .settings import check_choice

if TYPE_CHECKING:
    from .gradients import Evaluator

OUTPUTS = {
    "logits": "logits of classes that exclude each other; one output is the positive class's",
    "log_probabilities": "log-probabilities of classes that exclude each other",
    "probabilities": "probabilities of classes that exclude each other, or of the positive class",
    "multi_label": "one logit per label, with a sigmoid of its own: any number of labels can apply",
    "multi_label_probabilities": "one probability per label: any number of labels can apply",
    "regression": "values that are no classes",
    "decision_function": "one value per class, without probabilities, as a margin or a vote",
}
"""What outputs can be, by the names that `outputs=` takes."""

_ARE_PROBABILITIES = ("probabilities", "multi_label_probabilities")
_WITHOUT_PROBABILITIES = ("regression", "decision_function")
_LABELS = ("multi_label", "multi_label_probabilities")


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the outputs `(M, K)` of a model are, and how that is known.

    With K = 1, logits and probabilities are the positive class's: a logit z counts as the logits
    [0, z] of two classes.

    Attributes:
        kind: a name in `OUTPUTS`.
        source: "setting", "config.problem_type", "last operation", "values" or "assumed".
        warning: the name in `unilens.diagnostics.WARNINGS` that tells of a doubt; None without one.
    """

    kind: str
    source: str = "assumed"
    warning: str | None = None

    @classmethod
    def of(cls, provenance: Mapping[str, object]) -> OutputSpec:
        """Return what the provenance of an attribution says; logits where it says nothing."""
        known: Any = provenance.get("outputs")
        return cls(known["kind"], known["source"]) if isinstance(known, Mapping) else LOGITS

    @property
    def has_probabilities(self) -> bool:
        """Whether the outputs are probabilities, or can be turned into them."""
        return self.kind not in _WITHOUT_PROBABILITIES

    def probabilities(self, outputs: Tensor) -> Tensor:
        """Return the probability of each output `(..., K)`; NaN where there are none."""
        if not self.has_probabilities:
            return torch.full_like(outputs, torch.nan)
        if self.kind in _ARE_PROBABILITIES:
            return outputs
        if self.kind == "log_probabilities" and outputs.shape[-1] == 1:
            return outputs.exp()
        one_by_one = self.kind == "multi_label" or outputs.shape[-1] == 1
        return outputs.sigmoid() if one_by_one else outputs.softmax(-1)

    def confidence(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Return the target's probability `(...)`; NaN where the outputs have none."""
        return pick(self.probabilities(outputs), target)

    def class_logits(self, outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits `(M, C)` of classes that exclude each other, and the target among them.

        For labels that go together, and for one output, the two classes are "the target does not
        apply" and "it applies": their cross-entropy is the target's own binary cross-entropy.

        Raises:
            NotApplicableError: the outputs have no probabilities.
        """
        self.check_classes()
        if self.is_exclusive(outputs):
            return (_log(outputs) if self.kind == "probabilities" else outputs), target
        one = pick(outputs, target)
        if self.kind in _ARE_PROBABILITIES:
            other, one = _log(1 - one), _log(one)
        elif self.kind == "log_probabilities":
            other = _log(-torch.expm1(one))
        else:
            other = torch.zeros_like(one)
        return torch.stack([other, one], -1), torch.ones_like(target)

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the predicted class `(M,)`; of one output, whether the positive class is likelier.

        Of labels that go together it is the likeliest one.

        Raises:
            NotApplicableError: the outputs are no classes.
        """
        if self.kind == "regression":
            raise NotApplicableError(_NO_CLASSES.format("regression"))
        if outputs.shape[-1] > 1:
            return outputs.argmax(-1)
        if self.has_probabilities:
            return (self.probabilities(outputs)[..., 0] > 0.5).long()
        return (outputs[..., 0] > 0).long()

    def is_exclusive(self, outputs: Tensor) -> bool:
        """Whether each output is a class of its own that excludes the others."""
        return self.kind not in (*_LABELS, "regression") and outputs.shape[-1] > 1

    def check_classes(self) -> None:
        """Raise `NotApplicableError` where the outputs have no probabilities."""
        if not self.has_probabilities:
            raise NotApplicableError(_NO_CLASSES.format(self.kind))

    def check(self, outputs: Tensor) -> None:
        """Raise where outputs `(B, K)` are not what the user says that they are."""
        if self.source != "setting":
            return
        several = self.is_exclusive(outputs)
        values = outputs.exp() if self.kind == "log_probabilities" else outputs
        probable = self.kind in (*_ARE_PROBABILITIES, "log_probabilities")
        fits = not probable or (_within_unit(values, 0.02) and (not several or _sums(values, 0.02)))
        require(
            fits,
            f"expected {OUTPUTS[self.kind]}, as outputs={self.kind!r} says, got outputs from "
            f"{float(outputs.min()):.3g} to {float(outputs.max()):.3g} whose rows sum to "
            f"{float(outputs.sum(-1).min()):.3g} to {float(outputs.sum(-1).max()):.3g}; pass "
            "another outputs=, or leave it out",
        )


LOGITS = OutputSpec("logits")
"""What outputs are unless something else is known."""

_NO_CLASSES = (
    "expected outputs with probabilities of classes, got outputs={!r}; use a method and a baseline "
    "that need none, such as method='ig' with baseline='black'"
)


def given_spec(outputs: str | None) -> OutputSpec | None:
    """Return what the user says of the outputs; None where nothing is said."""
    if outputs is None:
        return None
    check_choice("outputs", outputs, OUTPUTS)
    return OutputSpec(outputs, "setting")


def output_spec(model: Evaluator, inputs: Tensor, outputs: Tensor | None = None) -> OutputSpec:
    """Return what the model's outputs are; found out once per evaluator.

    What the user says counts, then the `problem_type` of a Hugging Face configuration, then the
    values, then the last operation. Passes are only taken where the values could be
    probabilities: at most one with its gradient, and six points beside.

    Args:
        model: runs the model.
        inputs: `(B, *S)`.
        outputs: `(B, K)`, at the inputs; None to take a pass for them.

    Raises:
        UnilensError: the outputs are not what the user says, or log-sigmoids of labels.
    """
    if outputs is None and model.output_spec is not None:
        return model.output_spec
    outputs = (model(inputs) if outputs is None else outputs).detach()
    if model.output_spec is None and outputs.isfinite().all():
        model.output_spec = _detected(model, inputs.detach(), outputs)
    spec = model.output_spec or LOGITS
    spec.check(outputs)
    return spec


def pick(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the target's output `(...)` of outputs `(..., K)`."""
    return outputs.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def _detected(model: Evaluator, inputs: Tensor, outputs: Tensor) -> OutputSpec:
    several = outputs.shape[-1] > 1
    problem = _problem_type(model.model, outputs.shape[-1])
    if problem == "regression":
        return OutputSpec("regression", "config.problem_type")
    if several and (outputs <= 0).all() and _sums(outputs.exp(), _tolerance(outputs)):
        return OutputSpec("log_probabilities", "values")
    if _within_unit(outputs):
        found = _as_probabilities(model, inputs, outputs)
        if found is not None:
            return found
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
    bounded = _within_unit(elsewhere, tolerance)
    sums = outputs.shape[-1] > 1 and _sums(outputs, tolerance)
    if sums and bounded and _sums(elsewhere, tolerance):
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
"""Operations that hand values on as they are."""


def _last_operations(model: Evaluator, inputs: Tensor) -> set[str]:
    """Return the model's last operations, by autograd's names; empty where they are unknown.

    Those that hand values on are looked through, and so is arithmetic, which is named as well.
    """
    found: set[str] = set()

    def note(outputs: Tensor, rows: Tensor) -> Tensor:
        found.update(_operations(outputs.grad_fn))
        return outputs.sum(-1)

    try:
        model.differentiate(inputs[:1].unsqueeze(0), note)
    except (UnilensError, RuntimeError):  # that there is no gradient shows where one is needed
        return set()
    return found


def _operations(last: Any) -> set[str]:
    found, seen, left = set(), set(), [last]
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
        if name in _PASSED_ON | _ARITHMETIC:
            left += [before for before, _ in node.next_functions]
        if name not in _PASSED_ON | {"AccumulateGrad"}:
            found.add(name)
    return found if found - _ARITHMETIC else set()


def _outputs_elsewhere(model: Evaluator, inputs: Tensor) -> Tensor:
    """Return the outputs `(n, K)` near the first input and far out, where finite and not zero."""
    first = inputs[:1]
    noise = torch.randn(
        first.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32
    ).to(first)
    far = [sign * 30 * point for point in (first + noise, noise) for sign in (1, -1)]
    points = [first / 2 + noise / 10, -first - noise, *far]
    try:
        found = model.outputs(torch.stack(points))[:, 0].detach()
    except (UnilensError, ArithmeticError):  # a model that checks the range of its inputs
        return model(first)[:0]
    return found[found.isfinite().all(-1) & found.any(-1)]


def _problem_type(model: nn.Module, outputs: int) -> str | None:
    """Return what a Hugging Face configuration inside the model says of so many outputs."""
    for module in model.modules():
        config = getattr(module, "config", None)
        problem = getattr(config, "problem_type", None)
        if isinstance(problem, str) and getattr(config, "num_labels", None) == outputs:
            return problem
    return None


def _tolerance(outputs: Tensor) -> float:
    """Return by how much probabilities miss one, which depends on the precision they came in."""
    for dtype in (torch.bfloat16, torch.float16):
        if (outputs.to(dtype) == outputs).all():
            return 4 * torch.finfo(dtype).eps
    return 1e-4


def _within_unit(values: Tensor, tolerance: float = 1e-6) -> bool:
    return bool(((values >= -tolerance) & (values <= 1 + tolerance)).all())


def _sums(values: Tensor, tolerance: float) -> bool:
    """Return whether all rows sum to one."""
    return bool(((values.sum(-1) - 1).abs() <= tolerance).all())


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny).log()

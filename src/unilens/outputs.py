"""What a model's outputs are: logits, probabilities, several labels, or plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .errors import NotApplicableError, require

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
    """What the outputs `(M, K)` of a model are, and the source of this knowledge.

    With K = 1, logits and probabilities are the positive class's: a logit z counts as the logits
    [0, z] of two classes.

    Attributes:
        kind: a name in `OUTPUTS`.
        source: "setting", "config.problem_type", "last operation", "values" or "assumed".
        warning: a name in `unilens.diagnostics.WARNINGS`, where the kind is in doubt; else None.
    """

    kind: str
    source: str = "assumed"
    warning: str | None = None

    @classmethod
    def of(cls, provenance: Mapping[str, object]) -> OutputSpec:
        """Return the spec in the provenance of an attribution; logits where it has none."""
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

        For several labels, and for one output, the two classes are "the target does not
        apply" and "it applies": their cross-entropy is the target's own binary cross-entropy.

        Raises:
            NotApplicableError: the outputs have no probabilities.
        """
        self.check_classes()
        if self.is_exclusive(outputs):
            return (_log(outputs) if self.kind == "probabilities" else outputs), target
        applies = pick(outputs, target)
        if self.kind in _ARE_PROBABILITIES:
            does_not, applies = _log(1 - applies), _log(applies)
        elif self.kind == "log_probabilities":
            does_not = _log(-torch.expm1(applies))
        else:
            does_not = torch.zeros_like(applies)
        return torch.stack([does_not, applies], -1), torch.ones_like(target)

    def predicted(self, outputs: Tensor) -> Tensor:
        """Return the predicted class `(M,)`; of one output, whether the positive class is likelier.

        Of several labels it is the likeliest one.

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
        """Raise where outputs `(B, K)` contradict the user's setting."""
        if self.source != "setting":
            return
        several = self.is_exclusive(outputs)
        values = outputs.exp() if self.kind == "log_probabilities" else outputs
        probable = self.kind in (*_ARE_PROBABILITIES, "log_probabilities")
        fits = not probable or (
            within_unit(values, 0.02) and (not several or sums_to_one(values, 0.02))
        )
        require(
            fits,
            f"expected {OUTPUTS[self.kind]}, as outputs={self.kind!r} says, got outputs from "
            f"{float(outputs.min()):.3g} to {float(outputs.max()):.3g} whose rows sum to "
            f"{float(outputs.sum(-1).min()):.3g} to {float(outputs.sum(-1).max()):.3g}; pass "
            "another outputs=, or leave it out",
        )


LOGITS = OutputSpec("logits")
"""The default."""

_NO_CLASSES = (
    "expected outputs with probabilities of classes, got outputs={!r}; use a method and a baseline "
    "that need none, such as method='ig' with baseline='black'"
)


def pick(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the target's output `(...)` of outputs `(..., K)`."""
    return outputs.gather(-1, target.unsqueeze(-1)).squeeze(-1)


def within_unit(values: Tensor, tolerance: float = 1e-6) -> bool:
    """Return whether all values are probabilities."""
    return bool(((values >= -tolerance) & (values <= 1 + tolerance)).all())


def sums_to_one(values: Tensor, tolerance: float) -> bool:
    """Return whether all rows sum to one."""
    return bool(((values.sum(-1) - 1).abs() <= tolerance).all())


def _log(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny).log()

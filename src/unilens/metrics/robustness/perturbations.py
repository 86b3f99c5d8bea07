"""Perturbations: small changes of inputs that keep the predicted label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from torch import Tensor

from ..._engine.evaluator import PassCount
from ..._validation.settings import Check, Settings, check_component
from ...errors import NotApplicableError
from ...outputs import LOGITS
from ...registry import Card, Registry
from ..context import EvalContext
from .corruptions import Corruption, corruptions


@dataclass(frozen=True, slots=True)
class PerturbedInputs:
    """Changed inputs.

    Attributes:
        inputs: `(B, *S)`.
        kept: `(B,)`, whether the model still predicts what it predicted.
        details: what else is known, by name, each `(B, ...)`.
        provenance: how it was done, where that depends on the subject.
    """

    inputs: Tensor
    kept: Tensor
    details: Mapping[str, Tensor] = field(default_factory=dict)
    provenance: Mapping[str, object] = field(default_factory=dict)


class Perturbation(Settings, ABC):
    """Changes inputs a little.

    Attributes:
        map_independent: whether it uses neither the context's map nor its method nor its mask.
    """

    map_independent: ClassVar[bool] = False

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, at most, besides those of explanations."""
        return PassCount(0, 0)

    @property
    def explanations(self) -> int:
        """How many maps are made per input, at most."""
        return 0

    @abstractmethod
    def __call__(self, context: EvalContext) -> PerturbedInputs:
        """Return the changed inputs."""


perturbations: Registry[Perturbation] = Registry("perturbation")


def labels(context: EvalContext, outputs: Tensor) -> Tensor:
    """Return what the model predicts `(B,)`; see `OutputSpec.predicted`."""
    spec = context.evaluator.output_spec or LOGITS
    if spec.kind == "regression":
        raise NotApplicableError(
            "expected outputs of classes, since a changed input counts only where the class stays, "
            f"got outputs={spec.kind!r}; use max_sensitivity, or a score with classes"
        )
    return spec.predicted(outputs)


OneCorruption = Annotated[str | Corruption, Check(lambda name, value: None, lambda: corruptions)]
"""A setting: the name of a registered corruption, or a corruption."""


@dataclass(frozen=True)
class CorruptionPerturbation(Perturbation):
    """A change that a person looks past: of light, colour or focus, or noise.

    Args:
        corruption: one of `unilens.metrics.corruptions`, by name or as an object.
        strength: in the corruption's own unit; None for the mildest of ImageNet-C.

    References:
        Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """

    map_independent = True
    passes = PassCount(1, 0)
    corruption: OneCorruption = "brightness"
    strength: float | None = None

    def __post_init__(self) -> None:
        change = self._resolved
        if self.strength is not None:
            change.check(self.strength)

    @property
    def _resolved(self) -> Corruption:
        if isinstance(self.corruption, str):
            return corruptions[self.corruption]()
        check_component("corruption", self.corruption)
        return self.corruption

    def __call__(self, context: EvalContext) -> PerturbedInputs:
        """Return the changed inputs; see `Perturbation`."""
        change = self._resolved
        strength = change.severities[0] if self.strength is None else self.strength
        changed = change(context.inputs, strength, context.generators())
        kept = labels(context, context.evaluator(changed)) == labels(context, context.outputs)
        return PerturbedInputs(changed, kept, provenance={"strength": strength})


perturbations.add(
    Card(
        "corruption",
        "natural",
        "light, colour, focus or noise, by name and strength",
        "Hendrycks & Dietterich 2019, arXiv 1903.12261",
        deterministic=False,
    ),
    CorruptionPerturbation,
)

"""Perturbations within a distance of the input: an attack on the label, and random signs."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ..._engine.evaluator import PassCount
from ..._ops.precision import expand_like, l2_norm
from ..._validation.settings import Bounds, CountOrZero, Positive, one_of
from ...errors import UnilensError
from ...outputs import LOGITS
from ...registry import Card
from ..context import EvalContext
from .perturbations import Perturbation, PerturbedInputs, labels, perturbations

NORMS = ("linf", "l2")
"""linf: no value changes by more than the radius; l2: the root of the sum of squares."""


_RADIUS = 8 / 255


@dataclass(frozen=True)
class BoundedPerturbation(Perturbation, ABC):
    """The base of perturbations that stay within a distance of the input.

    Args:
        norm: that of the radius, "linf" or "l2".
        radius: the largest distance, in the inputs' units; None for 8/255 in linf, and in l2 for
            what has the same root mean square, 8/255 sqrt(d) for d values.
        bounds: the input box, which is not left; None for no box.
    """

    norm: Annotated[str, one_of(NORMS)] = "linf"
    radius: Positive | None = None
    bounds: Bounds | None = (0.0, 1.0)

    def _length(self, inputs: Tensor) -> float:
        """Return the radius for inputs `(B, *S)`."""
        if self.radius is not None:
            return self.radius
        return _RADIUS if self.norm == "linf" else _RADIUS * inputs[0].numel() ** 0.5

    def _check_box(self, inputs: Tensor) -> None:
        if self.bounds is None:
            return
        low, high = float(inputs.min()), float(inputs.max())
        if low < self.bounds[0] or high > self.bounds[1]:
            raise UnilensError(
                f"expected inputs within bounds {self.bounds}, got values from {low:.3g} to "
                f"{high:.3g}; pass the inputs' own bounds, or bounds=None"
            )

    def _towards(self, direction: Tensor) -> Tensor:
        """Return the step of length 1 that goes farthest in a direction; zero where there is none.

        That is the sign in linf, and the direction itself in l2.
        """
        if self.norm == "linf":
            return direction.sign()
        norm = expand_like(l2_norm(direction), direction)
        return torch.where(norm > 0, direction / norm, 0.0)

    def _inside(self, inputs: Tensor, points: Tensor, radius: float) -> Tensor:
        """Return the points, projected onto the ball about the inputs and the box."""
        if self.norm == "linf":
            points = points.clamp(inputs - radius, inputs + radius)
        else:
            shift = points - inputs
            norm = l2_norm(shift)
            shrink = torch.where(norm > radius, radius / norm, 1.0)
            points = inputs + shift * expand_like(shrink, shift)
        return points if self.bounds is None else points.clamp(*self.bounds)


def signs(context: EvalContext) -> Tensor:
    """Return random signs `(B, *S)`, each input's own."""
    shape = context.inputs.shape[1:]
    drawn = [torch.randint(2, shape, generator=one) for one in context.generators()]
    return (2 * torch.stack(drawn) - 1).to(context.inputs)


class Noise(BoundedPerturbation):
    """Random signs of the radius: the control, without which an attack's result means nothing.

    x' = x + r s, s_i drawn from {-1, 1}; in l2, s is scaled to length 1.

    References:
        Kamath et al. 2024, arXiv 2312.10534: by top-k intersection, random signs look like an
        attack.
    """

    map_independent = True
    passes = PassCount(1, 0)

    def __call__(self, context: EvalContext) -> PerturbedInputs:
        """Return the changed inputs; see `Perturbation`."""
        self._check_box(context.inputs)
        radius = self._length(context.inputs)
        moved = context.inputs + radius * self._towards(signs(context))
        moved = self._inside(context.inputs, moved, radius)
        return PerturbedInputs(
            moved, labels(context, context.evaluator(moved)) == labels(context, context.outputs)
        )


@dataclass(frozen=True)
class LabelAttack(BoundedPerturbation):
    """The fast gradient sign method against the label, as far as it fails to change it.

    x' = x + r sign(grad_x CE(F(x), c)), c the predicted class; r is the radius, halved until the
    label is kept. So the map is judged where the model is least sure that still sees the same.
    Where the loss has no slope nothing moves, and there is no value.

    Args:
        norm: see `BoundedPerturbation`.
        radius: see `BoundedPerturbation`.
        bounds: see `BoundedPerturbation`.
        halvings: how often the radius is halved at most.

    References:
        Goodfellow et al. 2015, arXiv 1412.6572.
    """

    map_independent = True
    halvings: CountOrZero = 10

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, at most."""
        return PassCount(2 + self.halvings, 1)

    def __call__(self, context: EvalContext) -> PerturbedInputs:
        """Return the changed inputs; see `Perturbation`."""
        self._check_box(context.inputs)
        inputs, label = context.inputs, labels(context, context.outputs)
        radius = self._length(inputs)
        direction = self._towards(_rise_of_loss(context, label))
        found, kept = inputs.clone(), torch.zeros_like(label, dtype=torch.bool)
        sloped = (direction != 0).flatten(1).any(1)
        for halving in range(self.halvings + 1):
            moved = self._inside(inputs, inputs + radius / 2**halving * direction, radius)
            same = labels(context, context.evaluator(moved)) == label
            newly = same & ~kept
            found[newly] = moved[newly]
            kept = kept | same
            if kept.all():
                break
        return PerturbedInputs(found, kept & sloped)


def _rise_of_loss(context: EvalContext, label: Tensor) -> Tensor:
    """Return the gradient of the label's cross-entropy at the inputs `(B, *S)`."""
    spec = context.evaluator.output_spec or LOGITS
    spec.check_classes()

    def loss(outputs: Tensor, rows: Tensor) -> Tensor:
        classes = label[rows]
        if outputs.shape[-1] == 1:  # the label is one of the two classes themselves
            logits, _ = spec.class_logits(outputs, torch.zeros_like(classes))
        else:
            logits, classes = spec.class_logits(outputs, classes)
        return cross_entropy(logits, classes, reduction="none")

    return context.evaluator.differentiate(context.inputs.unsqueeze(0), loss).gradients[0]


perturbations.add(
    Card(
        "fgsm_label",
        "attack",
        "one signed step against the label, the longest that does not change it",
        "Goodfellow et al. 2015, arXiv 1412.6572",
    ),
    LabelAttack,
)
perturbations.add(
    Card(
        "noise",
        "control",
        "random signs of the radius",
        "Kamath et al. 2024, arXiv 2312.10534",
        deterministic=False,
    ),
    Noise,
)

"""Attacks on maps: inputs nearby with the same label and another map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, cast

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._engine.smooth_activations import Smooth
from ..._validation.settings import Count, Positive, one_of
from ...attribution import Attribution
from ...errors import require
from ...explainer import Method
from ...methods import methods
from ...metrics.maps import Reduction
from ...provenance import describe
from ...registry import Card
from ..context import EvalContext
from ..similarities import Top
from .bounded import BoundedPerturbation, signs
from .explainer_vjp import explainer_vjp, has_explainer_vjp
from .objectives import FLAT_AT_INPUT, OBJECTIVES, Objective, ObjectiveSpec, slope
from .perturbations import PerturbedInputs, labels, perturbations

_START = 1 / 8
"""How far from the input the search begins where it has no slope there, in radii."""
_VJP_COST = 3
"""Cost of a vector-Jacobian product of a map, in maps: gradients and Hessian products."""


@dataclass(frozen=True)
class FastAttack(BoundedPerturbation):
    """One step of the whole radius along the gradient of how far the map moves.

    x' = x + r sign(grad_x D(A(x), A(x'))), the target fixed at x; kept where the map has moved and
    the model still predicts what it predicted, else x' = x and the maps are the same.

    The gradient is J^T v with v the slope of D at the map itself and J the map's Jacobian, taken on
    a softplus version of the network (ReLU has no second derivative). In it a baseline stays where
    it is, and one that was searched for moves with the input; see `explainer_vjp`. Labels and maps
    are always those of the network itself, and a baseline is searched for again at every step.

    Args:
        norm: see `BoundedPerturbation`; in "l2" the gradient is scaled to
            length 1 in place of its sign.
        radius: see `BoundedPerturbation`.
        bounds: see `BoundedPerturbation`.
        objective: D; "top_k" lowers the most relevant positions, "mass_centre" moves the centre of
            mass of the absolute values, "random" moves the map in a direction drawn at random,
            "difference" anyhow. "mass_centre" and "difference" have no slope at x: the search
            begins at random signs of an eighth of the radius.
        k: how many positions "top_k" pushes down; below 1 a fraction of them; None for 1000, or a
            tenth of the positions where that is less.
        reduction: how "top_k" reads maps: "sum", values summed over channels, or
            "abs", sums of absolute values.
        beta: sharpness of the softplus; None for the network itself.
        via: the method through whose map the direction is found: a name, or a method with its
            settings. None for the judged method, or "gradient" where `explainer_vjp` does not cover
            it.
        nodes: of the path, at which the gradient is taken: it says where to go, and a few will do.
            None for as many as the method has.

    References:
        Ghorbani et al. 2019, arXiv 1710.10547; Dombrowski et al. 2019, arXiv 1906.07983 (softplus);
        Choi et al. 2025, arXiv 2410.08069, whose definition leaves norm, radius and D open.
    """

    objective: Annotated[str, one_of(OBJECTIVES)] = "top_k"
    k: Top | None = None
    reduction: Reduction = "sum"
    beta: Positive | None = 30.0
    via: str | Method | None = None
    nodes: Count | None = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        via = methods[self.via]() if isinstance(self.via, str) else self.via
        require(
            via is None or has_explainer_vjp(via),
            f"expected via to be 'gradient', 'input_x_gradient' or a path method, got {self.via!r}",
        )

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, besides those of maps."""
        return PassCount(self._count, 0)

    @property
    def explanations(self) -> int:
        """How many maps are made per input, at most, vector-Jacobian products counted in maps."""
        return 3 + self._count * (2 + _VJP_COST)

    @property
    def _count(self) -> int:
        """How many steps are taken."""
        return 1

    def _stride(self, radius: float) -> float:
        return radius

    def __call__(self, context: EvalContext) -> PerturbedInputs:
        """Return the changed inputs; see `Perturbation`."""
        self._check_box(context.inputs)
        inputs, label = context.inputs, labels(context, context.outputs)
        radius, search = self._length(inputs), self._direction_of(context)
        objective = self._objective(context, context.values)
        best, found = objective(context.values), inputs.clone()
        moved = torch.zeros_like(label, dtype=torch.bool)
        points = self._start(context, radius)
        maps = search.maps_at(points)
        for _ in range(self._count):
            direction = self._towards(search.direction(points, maps))
            points = self._inside(inputs, points + self._stride(radius) * direction, radius)
            maps = search.maps_at(points)
            far = objective(maps.values)
            better = (far > best) & (labels(context, context.evaluator(points)) == label)
            best = torch.where(better, far, best)
            found[better] = points[better]
            moved |= better
        details = {"moved": moved, "objective": best}
        made = {"radius": radius, "via": describe(search.explainer)}
        return PerturbedInputs(found, torch.ones_like(moved), details, made)

    def _direction_of(self, context: EvalContext) -> _AttackDirection:
        given = methods[self.via]() if isinstance(self.via, str) else self.via
        own = given is None and has_explainer_vjp(context.method)
        explainer = cast(Method, context.method) if own else given or methods["gradient"]()
        model = context.evaluator
        smooth_model = (
            model if self.beta is None else model.with_model(Smooth(model.model, self.beta))
        )
        first = context.values if own else _attribution(context, explainer, context.inputs).values
        objective = self._objective(context, first)
        return _AttackDirection(context, explainer, own, smooth_model, objective, self.nodes)

    def _objective(self, context: EvalContext, first: Tensor) -> Objective:
        spec = ObjectiveSpec(first, self.reduction, self.k, context.generators())
        return OBJECTIVES[self.objective](spec)

    def _start(self, context: EvalContext, radius: float) -> Tensor:
        if self.objective not in FLAT_AT_INPUT:
            return context.inputs
        beside = context.inputs + _START * radius * self._towards(signs(context))
        return self._inside(context.inputs, beside, radius)


@dataclass(frozen=True)
class Attack(FastAttack):
    """Steps along the gradient of how far the map moves, within the radius; the worst counts.

    delta <- P(delta + s sign(grad_x D(A(x), A(x + delta)))), P the projection onto the ball and the
    box, the target fixed at x. Of all iterates with the label of x, that with the largest D is
    kept; where none has a larger one than x, delta = 0 and the maps are the same.

    Everything else is as in `FastAttack`.

    Args:
        step: s, the length of a step; None for an eighth of the radius.
        iterations: how many steps the attack takes.

    References:
        Ghorbani et al. 2019, arXiv 1710.10547: steps of 1/255 within 8/255.
    """

    step: Positive | None = None
    iterations: Count = 10

    @property
    def _count(self) -> int:
        return self.iterations

    def _stride(self, radius: float) -> float:
        return radius / 8 if self.step is None else self.step


class _MapsAtPoints(NamedTuple):
    """The judged method's maps `(B, *S)` at some points, and the attribution differentiated."""

    values: Tensor
    attribution: Attribution


@dataclass(frozen=True)
class _AttackDirection:
    """Finds the direction of a step: by the judged method's own map, or by another method's."""

    context: EvalContext
    explainer: Method
    own: bool
    smooth_model: Evaluator
    objective: Objective
    nodes: Count | None

    def maps_at(self, points: Tensor) -> _MapsAtPoints:
        """Return the maps at points `(B, *S)`."""
        attribution = _attribution(self.context, self.explainer, points)
        own = attribution.values.detach()
        return _MapsAtPoints(own if self.own else self.context.explain(points), attribution)

    def direction(self, points: Tensor, maps: _MapsAtPoints) -> Tensor:
        """Return the gradient of the goal in the inputs, at points `(B, *S)`."""
        vectors = slope(self.objective, maps.attribution.values)
        return explainer_vjp(
            self.explainer, self.smooth_model, points, maps.attribution, vectors, self.nodes
        )


def _attribution(context: EvalContext, explainer: Method, points: Tensor) -> Attribution:
    return explainer(
        context.evaluator, points, context.target, seed=context.map_seed, channels="first"
    )


_GHORBANI = "Ghorbani et al. 2019, arXiv 1710.10547"
perturbations.add(
    Card(
        "attack",
        "attack",
        "steps towards another map under the same label",
        _GHORBANI,
        deterministic=False,
    ),
    Attack,
)
perturbations.add(
    Card(
        "fgsm",
        "attack",
        "one step towards another map under the same label",
        _GHORBANI,
        deterministic=False,
    ),
    FastAttack,
)

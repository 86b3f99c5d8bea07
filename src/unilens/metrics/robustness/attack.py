"""The attack on the attribution: the input next door with the same label and another map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ..._engine.evaluator import Evaluator, PassCount
from ..._engine.smooth_activations import Smooth
from ..._validation.settings import check_choice, check_count, check_number
from ...attribution import Attribution
from ...errors import require
from ...explainer import Explainer, explain_channels_first
from ...methods import methods
from ...provenance import describe
from ...registry import Card
from ..context import EvalContext
from ..maps import check_relevance
from ..similarities import check_top
from .explainer_vjp import explainer_vjp, has_explainer_vjp
from .objectives import AT_REST, OBJECTIVES, Aim, Goal, slope
from .perturbations import Bounded, Perturbed, labels, perturbations, signs

_START = 1 / 8
"""How far from the input the search begins where it has no slope there, in radii."""
_WAY_BACK = 3
"""What a way back through a map costs, in maps: one of gradients, one of Hessian products."""


@dataclass(frozen=True)
class FastAttack(Bounded):
    """One step of the whole radius along the gradient of how far the map moves.

    x' = x + r sign(grad_x D(A(x), A(x'))), the target fixed at x; kept where the map has moved and
    the model still predicts what it predicted, else x' = x and the maps are the same.

    The gradient is J^T v with v the slope of D at the map itself and J the map's Jacobian, taken on
    a softplus stand-in of the network (ReLU has no second derivative). In it a baseline stays where
    it is, and one that was searched for moves with the input; see `explainer_vjp`. Labels and maps
    are always those of the network itself, and a baseline is searched for again at every step.

    Args:
        norm: see `Bounded`; in "l2" the gradient is scaled to length 1 in place of its sign.
        radius: see `Bounded`.
        bounds: see `Bounded`.
        objective: D; "top_k" pushes down the places that count most, "mass_centre" moves the centre
            of mass of the absolute values, "random" moves the map in a direction drawn at random,
            "difference" anyhow. "mass_centre" and "difference" have no slope at x: the search
            begins at random signs of an eighth of the radius.
        k: how many places "top_k" pushes down; below 1 a fraction of them; None for 1000, or a
            tenth of the places where that is less.
        relevance: how "top_k" reads maps: "attribution", values summed over channels, or
            "saliency", absolute values.
        beta: sharpness of the stand-in; None for the network itself.
        via: the method through whose map the direction is found: a name, or a method with its
            settings. None for the one that is judged, and for "gradient" where that has no way
            back.
        nodes: of the path, at which the gradient is taken: it says where to go, and a few will do.
            None for as many as the method has.

    References:
        Ghorbani et al. 2019, arXiv 1710.10547; Dombrowski et al. 2019, arXiv 1906.07983 (softplus);
        Choi et al. 2025, arXiv 2410.08069, whose definition leaves norm, radius and D open.
    """

    objective: str = "top_k"
    k: float | None = None
    relevance: str = "attribution"
    beta: float | None = 30.0
    via: str | Explainer | None = None
    nodes: int | None = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("objective", self.objective, OBJECTIVES)
        check_top(self.k)
        check_relevance(self.relevance)
        if self.beta is not None:
            check_number("beta", self.beta, above=0)
        if self.nodes is not None:
            check_count("nodes", self.nodes)
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
        """How many maps are made per input, at most, with the ways back in maps."""
        return 3 + self._count * (2 + _WAY_BACK)

    @property
    def _count(self) -> int:
        """How many steps are taken."""
        return 1

    def _stride(self, radius: float) -> float:
        return radius

    def __call__(self, context: EvalContext) -> Perturbed:
        """Return the changed inputs; see `Perturbation`."""
        self._check_box(context.inputs)
        inputs, label = context.inputs, labels(context, context.outputs)
        radius, guide = self._length(inputs), self._guide(context)
        goal = self._goal(context, context.values)
        best, found = goal(context.values), inputs.clone()
        moved = torch.zeros_like(label, dtype=torch.bool)
        points = self._start(context, radius)
        seen = guide.see(points)
        for _ in range(self._count):
            direction = self._towards(guide.direction(points, seen))
            points = self._inside(inputs, points + self._stride(radius) * direction, radius)
            seen = guide.see(points)
            far = goal(seen.values)
            better = (far > best) & (labels(context, context.evaluator(points)) == label)
            best = torch.where(better, far, best)
            found[better] = points[better]
            moved |= better
        details = {"moved": moved, "objective": best}
        made = {"radius": radius, "via": describe(guide.explainer)}
        return Perturbed(found, torch.ones_like(moved), details, made)

    def _guide(self, context: EvalContext) -> _Guide:
        given = methods[self.via]() if isinstance(self.via, str) else self.via
        own = given is None and has_explainer_vjp(context.method)
        explainer = cast(Explainer, context.method) if own else given or methods["gradient"]()
        model = context.evaluator
        stand_in = model if self.beta is None else model.with_model(Smooth(model.model, self.beta))
        first = context.values if own else _attribution(context, explainer, context.inputs).values
        goal = self._goal(context, first)
        return _Guide(context, explainer, own, stand_in, goal, self.nodes)

    def _goal(self, context: EvalContext, first: Tensor) -> Goal:
        aim = Aim(first, self.relevance, self.k, context.generators())
        return OBJECTIVES[self.objective](aim)

    def _start(self, context: EvalContext, radius: float) -> Tensor:
        if self.objective not in AT_REST:
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
        norm: see `FastAttack`.
        radius: see `FastAttack`.
        bounds: see `FastAttack`.
        objective: see `FastAttack`.
        k: see `FastAttack`.
        relevance: see `FastAttack`.
        beta: see `FastAttack`.
        via: see `FastAttack`.
        nodes: see `FastAttack`.
        step: s, the length of a step; None for an eighth of the radius.
        iterations: how many steps.

    References:
        Ghorbani et al. 2019, arXiv 1710.10547: steps of 1/255 within 8/255.
    """

    step: float | None = None
    iterations: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None:
            check_number("step", self.step, above=0)
        check_count("iterations", self.iterations)

    @property
    def _count(self) -> int:
        return self.iterations

    def _stride(self, radius: float) -> float:
        return radius / 8 if self.step is None else self.step


class _Seen(NamedTuple):
    """The judged method's maps `(B, *S)` at some points, and what the guide made of these."""

    values: Tensor
    attribution: Attribution


@dataclass(frozen=True)
class _Guide:
    """Says where to go: by the judged method's own map, or by another's."""

    context: EvalContext
    explainer: Explainer
    own: bool
    stand_in: Evaluator
    goal: Goal
    nodes: int | None

    def see(self, points: Tensor) -> _Seen:
        """Return the maps at points `(B, *S)`."""
        attribution = _attribution(self.context, self.explainer, points)
        own = attribution.values.detach()
        return _Seen(own if self.own else self.context.explain(points), attribution)

    def direction(self, points: Tensor, seen: _Seen) -> Tensor:
        """Return the gradient of the goal in the inputs, at points `(B, *S)`."""
        vectors = slope(self.goal, seen.attribution.values)
        return explainer_vjp(
            self.explainer, self.stand_in, points, seen.attribution, vectors, self.nodes
        )


def _attribution(context: EvalContext, explainer: Explainer, points: Tensor) -> Attribution:
    return explain_channels_first(
        explainer, context.evaluator, points, context.target, context.map_seed
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

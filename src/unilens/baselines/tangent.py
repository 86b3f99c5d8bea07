"""The base-point whose integrated gradients lie most in the tangent space of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._engine.score_gradient import ScoreGradient
from .._ops.precision import expand_like, to_float64
from .._validation.inputs import check_baseline
from .._validation.settings import Bounds, Count, CountOrZero, Positive
from ..errors import NotApplicableError, require
from ..manifold import Manifold, TangentSpace, as_manifold, check_manifold
from ..manifold.tangent import spaces_at
from ..quadrature import AnyRule, Quadrature, quadrature
from ..registry import Card
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .adam import Adam
from .base import (
    Baseline,
    BaselineResult,
    baseline_results,
    baselines,
    check_several,
    check_single,
    to_baselines,
)

COMMON = ("black", "uniform_noise", "gaussian_noise", "blur", "max_distance")
"""The base-points that the paper compares with."""


@dataclass(frozen=True)
class TangentAligned(Baseline):
    """Compare with the base-point whose integrated gradients are the most tangential.

    It maximises mu = |P A(x')| / |A(x')|, with A the integrated gradients from x' to x on a
    straight line, and P the projection onto the tangent space at x. Adam climbs from several
    base-points, inside the box; the best point seen is kept, so that it is never worse than the
    best of those it began from. With v the gradient of mu in A, and u = v * (x - x'),

        d mu / d x' = -v * sum_k w_k grad f(y_k) + sum_k w_k (1 - t_k) Hess f(y_k) u

    at the points y_k of the line: exact, and without a graph through them all. `score`, `rule` and
    `n_steps` are those of the attribution; as a part of a method they are the method's own.

    Another method that takes a baseline, or another path or weighting, makes another map from this
    point, for which nothing was optimised.

    Only what is certain of the paper is followed: the objective, and a base-point optimised for
    each input. The optimiser, its settings and where it starts are ours.

    Args:
        manifold: "transformations", which needs no data; a file of `unilens manifold fit`;
            `py:package.module:function`; or a `Manifold`.
        starts: names of registered baselines with their defaults, or baselines: all are tried.
        ascents: how many of them, the best for each input, are climbed from.
        learning_rate: of Adam: about the most that a value moves per iteration, in the inputs'
            units.
        iterations: Adam's steps; every one costs 3 `n_steps` passes each way for each ascent.
        bounds: the input box, lowest and highest value.
        score: what is explained, by name or as a function of logits and target.
        rule: quadrature, by name or as a function of n_steps.
        n_steps: nodes on the line.

    References:
        Simpson et al. 2024, "Tangentially Aligned Integrated Gradients for User-Friendly
        Explanations", arXiv 2503.08240.
    """

    reads_axes_from: ClassVar[int] = 3
    manifold: Manifold | str | Path = "transformations"
    starts: Sequence[str | Baseline] = COMMON
    ascents: Count = 1
    learning_rate: Positive = 0.02
    iterations: CountOrZero = 10
    bounds: Bounds = (0.0, 1.0)
    score: AnyScore = "probability"
    rule: AnyRule = "gauss_legendre"
    n_steps: Count = 50

    def __post_init__(self) -> None:
        as_manifold(self.manifold)
        check_several("starts", self.starts)
        for start in to_baselines(self.starts):
            check_single(start)
        require(
            self.ascents <= len(self.starts),
            f"expected ascents to be at most the number of starts, {len(self.starts)}, got "
            f"{self.ascents}",
        )
        resolve_score(self.score)
        quadrature(self.rule, self.n_steps)

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input; a product with a Hessian counts as two of each."""
        climbed = self.ascents * (3 * self.iterations + 1) * self.n_steps
        total = PassCount(climbed, climbed) if self.iterations else PassCount(0, 0)
        tried = len(self.starts) * self.n_steps
        total += PassCount(tried, tried)
        for start in to_baselines(self.starts):
            total += start.passes
        return total

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the manifold or a start does not fit the inputs."""
        check_manifold(as_manifold(self.manifold), inputs)
        for start in to_baselines(self.starts):
            try:
                start.check(model, inputs)
            except NotApplicableError as error:
                raise NotApplicableError(
                    f"a start of tangent_aligned does not fit: {error}; name others by starts=[...]"
                ) from error

    def __call__(
        self, model: Evaluator, inputs: Tensor, target: Tensor, *, generator: torch.Generator
    ) -> BaselineResult:
        """Return the baseline with the record of the search.

        `start_alignment` `(B, starts)`: mu from each start. `alignment` `(B, ascents,
        iterations + 1)`: mu along each ascent, from the best start on.
        """
        objective = _Alignment(
            ScoreGradient(model, resolve_score(self.score, model), target),
            inputs,
            spaces_at(as_manifold(self.manifold), inputs),
            quadrature(self.rule, self.n_steps),
        )
        starts = self._starts(model, inputs, target, generator)
        tried = objective(starts)
        order = tried.nan_to_num(-1.0).argsort(dim=0, descending=True, stable=True)
        chosen = order[: self.ascents]
        best = _Best(_taken(starts, order[:1])[0], tried.gather(0, order[:1])[0])
        trace = self._climb(objective, _taken(starts, chosen), tried.gather(0, chosen), best)
        return BaselineResult(best.points, {"start_alignment": tried.T, "alignment": trace})

    def _climb(
        self, objective: _Alignment, points: Tensor, alignment: Tensor, best: _Best
    ) -> Tensor:
        """Climb from points `(A, B, *S)`, keep the best; return mu on the way `(B, A, n)`."""
        adam = Adam(self.learning_rate, points)
        trace = []
        for _ in range(self.iterations):
            alignment, slope = objective.with_slope(points)
            trace.append(alignment)
            best.see(points, alignment)
            points = (points + adam.step(slope)).clamp(*self.bounds)
        if self.iterations:
            alignment = objective(points)
            best.see(points, alignment)
        return torch.stack([*trace, alignment], dim=2).transpose(0, 1)

    def _starts(
        self, model: Evaluator, inputs: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the base-points `(n, B, *S)` to begin from, inside the box."""
        found = []
        for start in to_baselines(self.starts):
            given = list(
                baseline_results(start(model, inputs.clone(), target, generator=generator))
            )
            require(len(given) == 1, f"expected one baseline per start, got {len(given)}")
            check_baseline(given[0].values, inputs)
            found.append(given[0].values.detach().to(inputs).clamp(*self.bounds))
        return torch.stack(found)


class _Alignment:
    """mu of the integrated gradients from base-points to the inputs, and its gradient."""

    def __init__(
        self, gradient: ScoreGradient, inputs: Tensor, space: TangentSpace, rule: Quadrature
    ) -> None:
        self._gradient, self._inputs, self._space, self._rule = gradient, inputs, space, rule

    def __call__(self, points: Tensor) -> Tensor:
        """Return mu `(n, B)` of base-points `(n, B, *S)`; NaN where the attribution is 0."""
        return self._contents((self._inputs - points) * self._mean_gradient(points))

    def with_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu `(n, B)` and its gradient `(n, B, *S)` in the base-points."""
        way = self._inputs - points
        mean = self._mean_gradient(points)
        maps = way * mean
        contents = self._contents(maps)
        pull = torch.stack([self._pull(*pair) for pair in zip(maps, contents, strict=True)])
        return contents, self._mean_product(points, pull * way) - pull * mean

    def _contents(self, maps: Tensor) -> Tensor:
        return torch.stack([self._space.content(one) for one in maps])

    def _pull(self, values: Tensor, contents: Tensor) -> Tensor:
        """Return the gradient of mu in maps `(B, *S)`: (P A / mu - mu A) / |A|^2."""
        inside, whole = self._space.project(values), to_float64(values)
        squares = whole.flatten(1).square().sum(1)
        pull = (
            inside * expand_like(1 / contents, inside) - whole * expand_like(contents, whole)
        ) / (expand_like(squares, whole))
        return pull.nan_to_num(0.0, 0.0, 0.0).to(values.dtype)

    def _mean_gradient(self, points: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        for along, fraction, weight in self._lines(points):
            found = self._gradient(along).gradients.unflatten(0, (len(fraction), -1))
            for one, share in zip(found, weight, strict=True):
                total.addcmul_(one, share)
        return total

    def _mean_product(self, points: Tensor, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        for along, fraction, weight in self._lines(points):
            repeated = vectors.repeat(len(fraction), *(1 for _ in vectors.shape[1:]))
            found = self._gradient.hessian_vector(along, repeated)
            shares = weight * (1 - fraction)
            for one, share in zip(found.unflatten(0, (len(fraction), -1)), shares, strict=True):
                total.addcmul_(one, share)
        return total

    def _lines(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield points `(m * n, B, *S)` on all lines, with their fractions and weights."""
        way = self._inputs - points
        nodes, weights = self._rule
        for fraction, weight in self._gradient.blocks(self._inputs, nodes, weights):
            yield (points + fraction.unsqueeze(1) * way).flatten(0, 1), fraction, weight


class _Best:
    """The best base-point of each input so far."""

    def __init__(self, points: Tensor, alignment: Tensor) -> None:
        self.points, self._alignment = points, alignment

    def see(self, points: Tensor, alignment: Tensor) -> None:
        """Take points `(n, B, *S)` where mu `(n, B)` is larger than before."""
        for some, content in zip(points, alignment, strict=True):
            better = content > self._alignment.nan_to_num(-1.0)
            self.points = torch.where(expand_like(better, some).bool(), some, self.points)
            self._alignment = torch.where(better, content, self._alignment)


def _taken(starts: Tensor, order: Tensor) -> Tensor:
    """Return the starts `(n, B, *S)` in each input's own order `(m, B)`."""
    return torch.stack([starts[one, torch.arange(starts.shape[1])] for one in order])


baselines.add(
    Card(
        "tangent_aligned",
        "manifold",
        "the base-point whose integrated gradients lie most in the data's tangent space",
        "Simpson et al. 2024, arXiv 2503.08240",
        deterministic=False,
        traits=("passes_at_most", "pictures"),
    ),
    TangentAligned,
)

"""The baseline whose integrated gradients align best with the tangent space of the data."""

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
from ..manifold import Manifold, TangentSpace, as_manifold, check_manifold, check_manifold_name
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
    single,
    to_baselines,
)

COMMON_BASELINES = ("black", "uniform_noise", "gaussian_noise", "blur", "max_distance")
"""The baselines that the paper compares with."""


@dataclass(frozen=True)
class TangentAligned(Baseline):
    """Compare with the baseline whose integrated gradients align best with the tangent space.

    The search maximises mu = |P A(x')| / |A(x')|, with A the integrated gradients from x' to x on
    a straight line, and P the projection onto the tangent space at x. Adam ascends from several
    starts, inside the box, and the search returns the best point visited, which is never worse
    than the best start. With v the gradient of mu in A, and u = v * (x - x'),

        d mu / d x' = -v * sum_k w_k grad f(y_k) + sum_k w_k (1 - t_k) Hess f(y_k) u

    at the points y_k of the line: exact, and without an autograd graph through all of them.
    `score`, `rule` and `n_steps` are those of the attribution; within a method they are the
    method's.

    The alignment is optimised for integrated gradients on a straight line; another path, weighting
    or method makes another map from this baseline.

    The objective and the search for each input follow the paper. The optimiser, its settings and
    its starts are choices of unilens.

    Args:
        manifold: "transformations", which needs no data; a file of `unilens manifold fit`;
            `py:package.module:function`; or a `Manifold`.
        starts: names of registered baselines with their defaults, or baselines; all are evaluated.
        ascents: the number of starts, the best for each input, from which Adam ascends.
        learning_rate: of Adam: roughly the largest change of a value per iteration, in the inputs'
            units.
        iterations: Adam's steps; each costs 3 `n_steps` forward and backward passes per ascent.
        bounds: the input box, lowest and highest value.
        score: the score to explain, by name or as a function of logits and target.
        rule: quadrature, by name or as a function of n_steps.
        n_steps: nodes on the straight line to the input.

    References:
        Simpson et al. 2024, "Tangentially Aligned Integrated Gradients for User-Friendly
        Explanations", arXiv 2503.08240.
    """

    reads_axes_from: ClassVar[int] = 3
    manifold: Manifold | str | Path = "transformations"
    starts: Sequence[str | Baseline] = COMMON_BASELINES
    ascents: Count = 1
    learning_rate: Positive = 0.02
    iterations: CountOrZero = 10
    bounds: Bounds = (0.0, 1.0)
    score: AnyScore = "probability"
    rule: AnyRule = "gauss_legendre"
    n_steps: Count = 50

    def __post_init__(self) -> None:
        check_manifold_name(self.manifold)
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
        count = len(self.starts) * self.n_steps
        if self.iterations:
            count += self.ascents * (3 * self.iterations + 1) * self.n_steps
        total = PassCount(count, count)
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

        `start_alignment` `(B, starts)`: mu at each start. `alignment` `(B, ascents,
        iterations + 1)`: mu along each ascent, the one from the best start first.
        """
        objective = _Alignment(
            ScoreGradient(model, resolve_score(self.score, model), target),
            inputs,
            spaces_at(as_manifold(self.manifold), inputs),
            quadrature(self.rule, self.n_steps),
        )
        starts = self._starts(model, inputs, target, generator)
        alignment = objective(starts)
        order = alignment.nan_to_num(-1.0).argsort(dim=0, descending=True, stable=True)
        chosen = order[: self.ascents]
        best = _Best(_select(starts, order[:1])[0], alignment.gather(0, order[:1])[0])
        trace = self._ascend(objective, _select(starts, chosen), alignment.gather(0, chosen), best)
        return BaselineResult(best.points, {"start_alignment": alignment.T, "alignment": trace})

    def _ascend(
        self, objective: _Alignment, points: Tensor, alignment: Tensor, best: _Best
    ) -> Tensor:
        """Ascend from points `(A, B, *S)`, keep the best; return mu at each step `(B, A, n)`."""
        adam = Adam(self.learning_rate, points)
        trace = []
        for _ in range(self.iterations):
            alignment, slope = objective.with_slope(points)
            trace.append(alignment)
            best.update(points, alignment)
            points = (points + adam.step(slope)).clamp(*self.bounds)
        if self.iterations:
            alignment = objective(points)
            best.update(points, alignment)
        return torch.stack([*trace, alignment], dim=2).transpose(0, 1)

    def _starts(
        self, model: Evaluator, inputs: Tensor, target: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return the starts `(n, B, *S)`, clipped to the box."""
        points = []
        for start in to_baselines(self.starts):
            results = baseline_results(start(model, inputs.clone(), target, generator=generator))
            values = single(results).values
            check_baseline(values, inputs)
            points.append(values.detach().to(inputs).clamp(*self.bounds))
        return torch.stack(points)


class _Alignment:
    """mu of the integrated gradients from baselines to the inputs, and its gradient."""

    def __init__(
        self, gradient: ScoreGradient, inputs: Tensor, space: TangentSpace, rule: Quadrature
    ) -> None:
        self._gradient, self._inputs, self._space, self._rule = gradient, inputs, space, rule

    def __call__(self, points: Tensor) -> Tensor:
        """Return mu `(n, B)` of baselines `(n, B, *S)`; NaN where the attribution is 0."""
        return self._contents((self._inputs - points) * self._mean_gradient(points))

    def with_slope(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu `(n, B)` of baselines and its gradient in them `(n, B, *S)`."""
        direction = self._inputs - points
        mean = self._mean_gradient(points)
        maps = direction * mean
        contents = self._contents(maps)
        slopes = torch.stack([self._slope(*pair) for pair in zip(maps, contents, strict=True)])
        return contents, self._mean_product(points, slopes * direction) - slopes * mean

    def _contents(self, maps: Tensor) -> Tensor:
        return torch.stack([self._space.content(values) for values in maps])

    def _slope(self, values: Tensor, contents: Tensor) -> Tensor:
        """Return the gradient of mu in maps `(B, *S)`: (P A / mu - mu A) / |A|^2."""
        inside, whole = self._space.project(values), to_float64(values)
        squares = whole.flatten(1).square().sum(1)
        slope = (
            inside * expand_like(1 / contents, inside) - whole * expand_like(contents, whole)
        ) / expand_like(squares, whole)
        return slope.nan_to_num(0.0, 0.0, 0.0).to(values.dtype)

    def _mean_gradient(self, points: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        for along, fraction, weight in self._lines(points):
            gradients = self._gradient(along).gradients.unflatten(0, (len(fraction), -1))
            for gradient, share in zip(gradients, weight, strict=True):
                total.addcmul_(gradient, share)
        return total

    def _mean_product(self, points: Tensor, vectors: Tensor) -> Tensor:
        total = torch.zeros_like(points)
        for along, fraction, weight in self._lines(points):
            repeated = vectors.repeat(len(fraction), *(1 for _ in vectors.shape[1:]))
            products = self._gradient.hessian_vector(along, repeated)
            products = products.unflatten(0, (len(fraction), -1))
            for product, share in zip(products, weight * (1 - fraction), strict=True):
                total.addcmul_(product, share)
        return total

    def _lines(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield points `(m * n, B, *S)` on all lines, with their fractions and weights."""
        direction = self._inputs - points
        nodes, weights = self._rule
        for fraction, weight in self._gradient.blocks(self._inputs, nodes, weights):
            yield (points + fraction.unsqueeze(1) * direction).flatten(0, 1), fraction, weight


class _Best:
    """The best baseline of each input so far."""

    def __init__(self, points: Tensor, alignment: Tensor) -> None:
        self.points, self._alignment = points, alignment

    def update(self, points: Tensor, alignment: Tensor) -> None:
        """Take points `(n, B, *S)` where mu `(n, B)` is larger than before."""
        for point, content in zip(points, alignment, strict=True):
            better = content > self._alignment.nan_to_num(-1.0)
            self.points = torch.where(expand_like(better, point).bool(), point, self.points)
            self._alignment = torch.where(better, content, self._alignment)


def _select(starts: Tensor, order: Tensor) -> Tensor:
    """Return starts `(m, B, *S)` by their numbers for each input `(m, B)`."""
    return torch.stack([starts[numbers, torch.arange(starts.shape[1])] for numbers in order])


baselines.add(
    Card(
        "tangent_aligned",
        "manifold",
        "the baseline whose integrated gradients align best with the data's tangent space",
        "Simpson et al. 2024, arXiv 2503.08240",
        deterministic=False,
        traits=("passes_at_most", "pictures"),
    ),
    TangentAligned,
)

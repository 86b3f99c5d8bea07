"""Expected gradients: integrated gradients averaged over references, by sampling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .._engine.balanced import AnyBalanced
from .._engine.evaluator import Evaluator, PassCount
from .._ops.precision import expand_like
from .._ops.random import per_input
from .._validation.references import References, references_for
from .._validation.settings import Count
from ..attribution import Attribution
from ..explainer import ExplainContext, Method
from ..registry import Card
from ..scores import AnyScore
from ..scores import resolve as resolve_score
from .base import methods


class _Draws(NamedTuple):
    """The references drawn and the fractions of the lines from them, both `(n_steps, B)`."""

    chosen: Tensor
    fractions: Tensor


@dataclass(frozen=True, eq=False)
class ExpectedGradients(Method):
    """Average (x_i - r_i) df/dx_i(r + t (x - r)) over draws of a reference r and a fraction t.

    The baseline of the result is the mean of the references drawn, and its score the mean of their
    scores, so that the completeness gap is the error of the sampling.

    Args:
        references: `(R, *S)`, in the inputs' units; required.
        n_steps: draws per input, each of one reference and one fraction.
        sampling: "stratified": the k-th fraction is uniform in [k/n, (k+1)/n), and the numbers of
            draws of two references differ by at most one; "independent": the paper's draws.
        score: what is explained, by name or as a function of logits and target.
        balanced: whether gradients are balanced, which then do not add up; see `Gradient`.

    References:
        Erion et al. 2021, "Improving performance of deep learning models with axiomatic
        attribution priors and expected gradients", arXiv 1906.10670. The stratification is ours.

    Example:
        >>> model = torch.nn.Linear(2, 2, bias=False).eval()
        >>> _ = torch.nn.init.constant_(model.weight, 3.0)
        >>> explain = ExpectedGradients(torch.tensor([[0.0, 0.0], [1.0, 2.0]]), 2, score="logit")
        >>> explain(model, torch.tensor([[1.0, 2.0]]), 0).values
        tensor([[1.5000, 3.0000]])
    """

    references: References | None = None
    n_steps: Count = 200
    sampling: Literal["stratified", "independent"] = "stratified"
    score: AnyScore = "probability"
    balanced: AnyBalanced = False

    @property
    def complete(self) -> bool:
        """Whether the values add up in expectation: the gap is the error of the sampling."""
        return not self.balanced

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input, with those for the references' scores."""
        return PassCount(self.n_steps + min(self._count, self.n_steps) + 1, self.n_steps)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `UnilensError` where references are missing or have another shape."""
        references_for("expected_gradients", self.references, inputs)

    def _explain(self, context: ExplainContext) -> Attribution:
        references = references_for("expected_gradients", self.references, context.inputs)
        score = resolve_score(self.score, context.evaluator)
        gradient = context.gradient_of(score)
        draws = self._draw(context)
        total = torch.zeros_like(context.inputs)
        baseline = torch.zeros_like(context.inputs)
        for chosen, fractions in self._blocks(context, *draws):
            starts = references[chosen]
            directions = context.inputs - starts
            points = starts + expand_like(fractions, starts) * directions
            steps = zip(gradient(points).gradients, directions, starts, strict=True)
            for slope, direction, start in steps:  # rounding must not depend on the batch
                total += slope * direction
                baseline += start
        attribution = Attribution(
            values=total / self.n_steps,
            target=context.target,
            score=score(context.outputs, context.target),
            outputs=context.outputs,
            baseline=baseline / self.n_steps,
            baseline_score=self._mean_score(context, references, draws.chosen),
            complete=self.complete,
        )
        return attribution.with_measured(**attribution.score_diagnostics)

    @property
    def _count(self) -> int:
        return 0 if self.references is None else len(self.references)

    def _draw(self, context: ExplainContext) -> _Draws:
        def draw(generator: torch.Generator) -> Tensor:
            uniform = torch.rand(self.n_steps, generator=generator, dtype=torch.float64)
            if self.sampling == "independent":
                chosen = torch.randint(self._count, (self.n_steps,), generator=generator)
                return torch.stack([chosen, uniform])
            rounds = -(-self.n_steps // self._count)
            orders = [torch.randperm(self._count, generator=generator) for _ in range(rounds)]
            fractions = (torch.arange(self.n_steps) + uniform) / self.n_steps
            return torch.stack([torch.cat(orders)[: self.n_steps], fractions])

        drawn = per_input(context.inputs, torch.Generator().manual_seed(context.seed), draw)
        chosen, fractions = drawn.permute(1, 2, 0)
        return _Draws(chosen.long(), fractions)

    def _mean_score(self, context: ExplainContext, references: Tensor, chosen: Tensor) -> Tensor:
        """Return the mean score `(B,)` of the references drawn; few references run once each."""
        if self._count <= self.n_steps:
            indices = torch.arange(self._count, device=chosen.device).unsqueeze(1)
            known = self._scores(context, references, indices.expand(-1, len(context.inputs)))
            scores = known.gather(0, chosen)
        else:
            scores = self._scores(context, references, chosen)
        total = torch.zeros_like(scores[0])
        for score in scores:
            total += score
        return total / self.n_steps

    def _scores(self, context: ExplainContext, references: Tensor, chosen: Tensor) -> Tensor:
        """Return the scores `(n, B)` of the references chosen `(n, B)`."""
        score = resolve_score(self.score, context.evaluator)
        scores = []
        for (block,) in self._blocks(context, chosen):
            outputs = context.evaluator.outputs(references[block])
            scores += [score(logits, context.target) for logits in outputs]
        return torch.stack(scores)

    def _blocks(self, context: ExplainContext, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
        size = context.evaluator.points_at_once(context.inputs)
        return zip(*(value.split(size) for value in values), strict=True)


methods.add(
    Card(
        "expected_gradients",
        "references",
        "integrated gradients averaged over references=(R, *S)",
        "Erion et al. 2021, arXiv 1906.10670",
        False,
    ),
    ExpectedGradients,
)

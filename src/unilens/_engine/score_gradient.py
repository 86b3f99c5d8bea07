"""The gradient of a score, which a path integrates."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from .evaluator import Evaluation, Evaluator
from .rewriting import AttentionRule


class ScoreGradient:
    """The gradient of a score at points `(N, B, *S)`, which a path integrates.

    Args:
        evaluator: runs the model.
        score: from logits `(M, K)` and targets `(M,)` to values `(M,)`.
        target: `(B,)`, fixed.
        create_graph: whether what it returns can be differentiated again.
        balanced: the rule of attention weights of balanced gradients; None for the model's own.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        score: Callable[[Tensor, Tensor], Tensor],
        target: Tensor,
        *,
        create_graph: bool = False,
        balanced: AttentionRule | None = None,
    ) -> None:
        self.evaluator, self.score, self.target = evaluator, score, target
        self._create_graph, self._balanced = create_graph, balanced

    def __call__(self, points: Tensor) -> Evaluation:
        """Return outputs `(N, B, K)`, scores `(N, B)` and gradients `(N, B, *S)`."""
        return self.evaluator.differentiate(
            points, self._objective, create_graph=self._create_graph, balanced=self._balanced
        )

    def scores(self, points: Tensor) -> Tensor:
        """Return the scores `(N, B)` at points `(N, B, *S)`, without gradient."""
        outputs = self.evaluator.outputs(points)
        target = self.target.expand(outputs.shape[:2])
        return self.score(outputs.flatten(0, 1), target.flatten()).view(outputs.shape[:2])

    def blocks(self, inputs: Tensor, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Yield per-step values `(n_steps,)` or `(n_steps, B)` in blocks, shaped to scale inputs.

        Blocks bound the memory: what is in use does not grow with the number of steps.
        """
        size = self.evaluator.points_at_once(inputs)
        cast = [
            value.to(inputs.dtype)
            .to(inputs.device)
            .view(len(value), -1, *(1 for _ in inputs.shape[1:]))
            for value in values
        ]
        yield from zip(*(value.split(size) for value in cast), strict=True)

    def hessian_vector(self, points: Tensor, vectors: Tensor) -> Tensor:
        """Return the score's Hessian-vector products `(N, B, *S)` at points `(N, B, *S)`."""
        return self.evaluator.hessian_vector(points, vectors, self._objective)

    def _objective(self, outputs: Tensor, rows: Tensor) -> Tensor:
        return self.score(outputs, self.target[rows])

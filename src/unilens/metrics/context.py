"""The context of a metric: a map, what it explains, and how to make another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._ops.precision import to_float64
from .._ops.random import generators, seed_for
from .._ops.spatial import spatial_shape_of
from ..attribution import Attribution
from ..errors import require
from ..explainer import Method
from ..groups.base import Groups
from ..scores import Score
from .cache import MetricCache
from .maps import check_map, reduce_channels

T = TypeVar("T")
MapFunction = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""From a model, inputs `(B, *S)` and target `(B,)` to maps `(B, *S)`: any library's method."""


@dataclass(frozen=True, slots=True)
class EvalContext:
    """A map of a model's decision at each input, and how to make another.

    Attributes:
        evaluator: runs the model.
        inputs: `(B, *S)`.
        target: `(B,)`, the classes that the maps explain.
        outputs: `(B, K)`, the model's logits at the inputs.
        values: `(B, *S)`, the maps, signed; finite.
        seed: of everything random; what is drawn for an input depends on it and the input alone.
        attribution: the maps with all that is known of them, where they are unilens's own.
        method: what makes the maps, where it was given.
        mask: `(B, *spatial)`, true where the object is, where it was given.
        without_parts: `(B, P, *S)`, the inputs without each of their parts, where they were given.
        cache: what was found out for other maps and by other metrics, where one is kept.
        groups: of the positions `(1|B, *spatial)`, where they were given.
    """

    evaluator: Evaluator
    inputs: Tensor
    target: Tensor
    outputs: Tensor
    values: Tensor
    seed: int
    attribution: Attribution | None = None
    method: Method | MapFunction | None = None
    mask: Tensor | None = None
    without_parts: Tensor | None = None
    cache: MetricCache | None = None
    groups: Groups | None = None

    def reduce_channels(self, reduction: str) -> Tensor:
        """Return the maps without channels `(B, *spatial)`; see `maps.reduce_channels`."""
        return reduce_channels(self.values, reduction)

    @property
    def spatial_shape(self) -> torch.Size:
        """The spatial shape of one input: its pixels, samples of a signal, or features."""
        return spatial_shape_of(self.inputs.shape[1:])

    @property
    def map_seed(self) -> int:
        """The seed that the maps were made with, and are made again: the metric's if unknown."""
        made = {} if self.attribution is None else self.attribution.provenance
        return cast(int, made.get("seed", self.seed))

    def generators(self) -> list[torch.Generator]:
        """Return the generator of each input: others than those of methods of the same seed."""
        seed = seed_for("metric", self.seed)
        return generators(self.inputs, torch.Generator().manual_seed(seed))

    def score_of(self, score: Score, outputs: Tensor) -> Tensor:
        """Return the scores `(..., B)` of outputs `(..., B, K)`, in float64."""
        target = self.target.expand(outputs.shape[:-1])
        return to_float64(score(outputs.flatten(0, -2), target.flatten())).view(outputs.shape[:-1])

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Return what `make` gives, made once for all maps where there is a cache.

        Args:
            key: all that it depends on beside the model, the inputs, the target and the seed.
            make: gives it; nobody may change it afterwards.
        """
        if self.cache is None:
            return make()
        return self.cache.once((self.target, self.seed, key), make)

    def once_per_map(self, key: object, make: Callable[[], T]) -> T:
        """Return what `make` gives, made once for all metrics of this map where there is a cache.

        Args:
            key: all that it depends on beside the context.
            make: gives it; nobody may change it afterwards.
        """
        if self.cache is None:
            return make()
        of_map = self.target, self.seed, self.values, self.attribution, self.method, self.mask
        return self.cache.once_per_map(of_map, key, make)

    def explain(
        self,
        inputs: Tensor,
        model: nn.Module | Evaluator | None = None,
        *,
        target: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Return the maps `(m, *S)` that the method makes of other inputs, or of another model.

        Args:
            inputs: `(m, *S)`.
            model: in place of the context's.
            target: `(m,)`, in place of the context's.
            rows: `(m,)`, of which of the context's inputs these are others; None for all of them.
        """
        require(self.method is not None, "expected method=, to explain again; got None")
        method = self.method if rows is None else method_of_rows(self.method, rows)
        if target is None:
            target = self.target if rows is None else self.target[rows]
        if isinstance(method, Method):
            evaluator = model or self.evaluator
            found = method(evaluator, inputs, target, seed=self.map_seed, channels="first")
            return found.values.detach()
        bare = self.evaluator.model if model is None else model
        bare = bare.model if isinstance(bare, Evaluator) else bare
        with torch.enable_grad():
            made = cast(MapFunction, method)(bare, inputs.detach().clone(), target)
        return check_map(made, inputs)

    def blocks(self, count: int) -> list[range]:
        """Return the numbers 0 ... count - 1 in blocks: as many points as fit into memory."""
        size = self.evaluator.points_at_once(self.inputs)
        return [range(first, min(first + size, count)) for first in range(0, count, size)]


def method_of_rows(method: str | Method | MapFunction | None, rows: Tensor) -> Any:
    """Return the method for some inputs of a batch; see `Method.of_rows`."""
    return method.of_rows(rows) if isinstance(method, Method) else method

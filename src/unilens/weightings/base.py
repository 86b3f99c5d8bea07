"""The base class of weightings, and the registry of weightings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, cast

from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.settings import Settings, check_component
from ..errors import UnilensError
from ..paths import PathChunk
from ..quadrature import Quadrature
from ..registry import Card, Registry

Factors = Iterator[tuple[Tensor, Tensor]]
"""Two factors `(B, *S)` per step; the attribution is the sum of their products."""


class Weighting(Settings, ABC):
    """A map from the chunks of a path to the terms of the attribution.

    A plain function with the signature of `__call__` is accepted in place of a weighting.

    Attributes:
        nested: whether it may run a second time, beside the first, over every third node: it keeps
            nothing between calls, and yields one pair of factors for each node.
        shares_changes: whether the terms of a step share the change of the score, so that they add
            up whatever the gradients are.
    """

    nested: ClassVar[bool] = False
    shares_changes: ClassVar[bool] = False

    @property
    def complete(self) -> bool:
        """Whether the terms sum to the change of the score in theory."""
        return True

    @property
    def places_nodes(self) -> bool:
        """Whether it chooses the nodes on paths that take nodes per input; see `place`."""
        return False

    @property
    def reads_axes_from(self) -> int | None:
        """The smallest `inputs.ndim` for which the channel axis matters; None if it never does."""
        return None

    def for_model(self, model: Evaluator) -> Weighting:
        """Return the weighting for a model; it may depend on the model's named inputs."""
        return self

    def place(self, scores: Tensor) -> Quadrature:
        """Return nodes and weights `(n, B)` from the scores `(n + 1, B)` at equidistant points."""
        raise UnilensError(
            f"expected {type(self).__name__} to define place(self, scores), since its "
            "places_nodes is true"
        )

    @abstractmethod
    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield the factors of each step.

        Args:
            chunks: of the path, in order from the baseline.
            quadrature: its weights are the lengths of the steps, in fractions of the path.
            start: `(B,)`, the score at the baseline.
            end: `(B,)`, the score at the input.
        """


@dataclass(frozen=True)
class FunctionWeighting(Weighting):
    """A plain function as a weighting.

    Args:
        function: as `Weighting.__call__`.
    """

    function: Callable[..., Factors]

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield what the function yields; see `Weighting`."""
        return self.function(chunks, quadrature, start, end)


def to_weighting(given: object) -> Weighting:
    """Return the weighting of a registered name or a function; return a weighting as it is."""
    if isinstance(given, Weighting):
        return given
    if isinstance(given, str):
        return weightings[given]()
    check_component("weighting", given)
    return FunctionWeighting(cast(Callable[..., Factors], given))


weightings: Registry[Weighting] = Registry("weighting")


@dataclass(frozen=True)
class Riemann(Weighting):
    """Multiply the gradient by the displacement: the integral along the path."""

    nested = True

    def __call__(
        self, chunks: Iterable[PathChunk], quadrature: Quadrature, start: Tensor, end: Tensor
    ) -> Factors:
        """Yield gradients and displacements; see `Weighting`."""
        for chunk in chunks:
            gradients = chunk.evaluation.gradients
            yield from zip(gradients, chunk.displacement.expand_as(gradients), strict=True)


def score_changes(
    chunks: Iterable[PathChunk], start: Tensor, end: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield gradient and displacement `(B, *S)` of each node, and the change of the score `(B,)`.

    The change is that up to the next node; for the first node, from the baseline on.
    """
    node: tuple[Tensor, Tensor] | None = None
    before = start
    for chunk in chunks:
        gradients, values = chunk.evaluation.gradients, chunk.evaluation.values
        displacements = chunk.displacement.expand_as(gradients)
        for gradient, displacement, score in zip(gradients, displacements, values, strict=True):
            if node is not None:
                yield *node, score - before
                before = score
            node = gradient, displacement
    if node is not None:
        yield *node, end - before


weightings.add(
    Card(
        "riemann",
        "integral",
        "gradient times displacement",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    ),
    Riemann,
)

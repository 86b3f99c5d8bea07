"""The attribution by every third node of a path, which shows how far the full sum has converged."""

from __future__ import annotations

import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ..paths import PathChunk
from ..quadrature import Quadrature
from .base import Weighting

_GROUP = 3
"""Nodes that one node of the coarse sum stands for: every third midpoint is a midpoint again."""


class CoarseSum:
    """The attribution by every third node, added up beside that by all nodes.

    Args:
        weighting: of both sums.
        chunks: of the path; they are read about as fast as `advance` is called.
        quadrature: of the path, with at least two nodes.
        start: `(B,)`, the score at the baseline.
        end: `(B,)`, the score at the input.
        like: `(B, *S)`, a tensor of the map's shape.
    """

    def __init__(
        self,
        weighting: Weighting,
        chunks: Iterable[PathChunk],
        quadrature: Quadrature,
        start: Tensor,
        end: Tensor,
        like: Tensor,
    ) -> None:
        groups = _Groups.of(quadrature)
        coarse = groups.rule(quadrature)
        self._terms = weighting(groups.merge(chunks), coarse, start.detach(), end.detach())
        self._ends = set(torch.tensor(groups.sizes).cumsum(0).tolist())
        self._expected, self._steps = sum(groups.sizes), 0
        self._value = torch.zeros_like(like)

    @property
    def value(self) -> Tensor | None:
        """The sum `(B, *S)`; None where the path has other steps than its rule."""
        return self._value if self._steps == self._expected else None

    def advance(self) -> None:
        """Note a step of the full sum; add a term where it is the last one of its group."""
        self._steps += 1
        if self._steps in self._ends:
            first, second = next(self._terms)
            self._value.addcmul_(first, second)


class _Groups(NamedTuple):
    """Consecutive nodes of a rule in groups of three, with one node of each.

    Attributes:
        sizes: of the groups, in order.
        chosen: position, within its group, of the node that stands for it, `(G,)`; `(G, B)` where
            each input has nodes of its own.
    """

    sizes: list[int]
    chosen: Tensor

    @classmethod
    def of(cls, quadrature: Quadrature) -> _Groups:
        """Return the groups of a rule.

        The node chosen lies in its group as the rule's nodes lie in their steps: the last one for
        the right rule, the middle one for the midpoint rule.
        """
        nodes, weights = quadrature
        count = -(-len(nodes) // _GROUP)
        sizes = [len(part) for part in torch.arange(len(nodes)).tensor_split(count)]
        left = weights.cumsum(0) - weights
        position = ((nodes - left) / weights.clamp_min(1e-12)).mean(0).clamp(0, 1)
        return cls(sizes, torch.stack([(position * (size - 1) + 0.5).long() for size in sizes]))

    def rule(self, quadrature: Quadrature) -> Quadrature:
        """Return the nodes chosen, with the weights of their groups."""
        starts = torch.tensor([0, *self.sizes[:-1]], device=self.chosen.device).cumsum(0)
        index = starts.view(-1, *[1] * (self.chosen.ndim - 1)) + self.chosen
        nodes = quadrature.nodes.gather(0, index)
        weights = [part.sum(0) for part in quadrature.weights.split(self.sizes)]
        return Quadrature(nodes, torch.stack(weights))

    def merge(self, chunks: Iterable[PathChunk]) -> Iterator[PathChunk]:
        """Yield a chunk of one node for each group, with the displacement of the whole group."""
        nodes = _nodes(chunks)
        for size, chosen in zip(self.sizes, self.chosen, strict=True):
            group = list(itertools.islice(nodes, size))
            if len(group) == size:
                displacement = functools.reduce(torch.add, (node.displacement for node in group))
                yield _pick(group, chosen)._replace(displacement=displacement)


def _pick(group: list[PathChunk], chosen: Tensor) -> PathChunk:
    """Return the chosen node of a group: one for all inputs, or one for each `(B,)`."""
    if not chosen.ndim:
        return group[int(chosen)]
    rows = torch.arange(len(chosen), device=chosen.device)

    def pick(fields: Iterable[Tensor]) -> Tensor:
        return torch.cat(list(fields))[chosen, rows].unsqueeze(0)

    fields = zip(*(node.evaluation for node in group), strict=True)
    return PathChunk(
        pick(node.fraction for node in group),
        pick(node.points for node in group),
        type(group[0].evaluation)(*map(pick, fields)),
        group[0].displacement,
    )


def _nodes(chunks: Iterable[PathChunk]) -> Iterator[PathChunk]:
    """Yield the nodes of chunks, without a graph, as chunks of one node."""
    for chunk in chunks:
        outputs, values, gradients = (field.detach() for field in chunk.evaluation)
        displacement = chunk.displacement.detach().expand_as(gradients)
        for k in range(len(gradients)):
            one = slice(k, k + 1)
            yield PathChunk(
                chunk.fraction[one],
                chunk.points[one].detach(),
                type(chunk.evaluation)(outputs[one], values[one], gradients[one]),
                displacement[one],
            )


def fork(chunks: Iterator[PathChunk]) -> tuple[Iterator[PathChunk], Iterator[PathChunk]]:
    """Return two iterators over the same chunks, which are kept until both have yielded them."""
    first: deque[PathChunk] = deque()
    second: deque[PathChunk] = deque()

    def branch(own: deque[PathChunk]) -> Iterator[PathChunk]:
        while True:
            if not own:
                chunk = next(chunks, None)
                if chunk is None:
                    return
                first.append(chunk)
                second.append(chunk)
                del chunk
            yield own.popleft()

    return branch(first), branch(second)

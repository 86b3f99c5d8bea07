"""Gradients of many targets at once: one forward pass serves all of them.

In a causal model the logits at a position do not depend on later tokens, so that one pass over a
text has the logits of all of its targets. The gradients are one pass backward for each target,
many of them in one batch. Whatever is shared is compared with plain passes on the user's own text
before it is used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..._engine.memory import free_memory
from ..._ops.precision import to_float64
from ..model import agree, rounding
from .next_token import NextToken
from .targets import Targets

_BYTES = {"cpu": 128 * 2**20, "other": 2 * 2**30}
"""What the gradients of one batch of targets may take, and what a pass may save."""
_SHARE_OF_FREE_MEMORY = 0.25
_LIVE = 4
"""Gradients of the size of the largest activation that a pass backward keeps at a time."""
_TARGETS = 8
"""Targets of a batch at the least, where there is memory: fewer do not fill the batch."""
_POINTS = 8
"""The most points of a pass: more do not make it faster."""


def is_causal(model: NextToken, targets: Targets) -> bool:
    """Return whether logits stay the same when later tokens change or are not there.

    Checked on the text itself: at the first target and at one in the middle.
    """
    embeddings, first = model.embeddings, targets.prompt_count
    length = embeddings.shape[-1]
    if length == first:
        return True
    with torch.no_grad():
        whole = model.logits(embeddings, length - first + 1)
        for cut in {first, (first + length) // 2}:
            later = embeddings.clone()
            later[..., cut:] = later[..., cut:].flip(-1) + later[..., :1]
            same = model.logits(later, length - first + 1)[:, : cut - first + 1]
            alone = model.logits(embeddings[..., :cut], 1)
            expected = whole[:, : cut - first + 1]
            if not (agree(same, expected) and agree(alone, expected[:, -1:])):
                return False
    return True


@dataclass
class SharedGradients:
    """Contracts the gradients of all targets' scores with a direction.

    Attributes:
        model: of the token after all sources of the last target.
        targets: to explain.
        mode: entered around every forward pass.
        ways: how gradients may be computed, the fastest first: from the inputs of the logits' layer
            or from the scores; in a batch or one by one. Those that fail on the first targets, or
            differ from a plain pass backward, are dropped.
    """

    model: NextToken
    targets: Targets
    mode: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext
    ways: list[tuple[str, str]] = field(
        default_factory=lambda: [
            ("head", "batch"),
            ("head", "loop"),
            ("scores", "batch"),
            ("scores", "loop"),
        ]
    )

    def __post_init__(self) -> None:
        self._proven, self._rows_checked = False, False
        self.passes = {"forward": 0, "backward": 0}
        self.saved, self.largest = self._measure()

    def __call__(self, points: Tensor, directions: Tensor | None) -> Tensor:
        """Return sums over points of gradients times directions, by source, `(T, L)` in float64.

        Args:
            points: `(n, E, L)`, embeddings of all sources.
            directions: `(n, E, L)`; None for the l2 norm of the gradients' sum over points.

        Returns:
            The sums over points and channels; 0 where a source does not come before a target.
        """
        explained = self.targets.explained
        sums = torch.zeros(
            len(self.targets.ids), points.shape[-1], dtype=torch.float64, device=points.device
        )
        for chunk in self.chunks(explained):
            length = self.targets.length(chunk[-1])
            total = torch.zeros(len(chunk), *points.shape[1:-1], length).to(points)
            for rows in torch.arange(len(points)).split(self._points_at_once(len(chunk))):
                gradients = self._gradients(points[rows, :, :length], chunk)
                if directions is not None:
                    gradients = gradients * directions[rows, :, :length]
                total += gradients.sum(1)
            total = to_float64(total)
            values = total.norm(dim=1) if directions is None else total.sum(1)
            sums[list(chunk), :length] = values
        return sums

    def chunks(self, explained: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Yield the targets in batches: each has a forward pass over its own prefix of the text."""
        size = max(1, min(self._most_targets(), max(_TARGETS, len(explained) // 4)))
        for first in range(0, len(explained), size):
            yield tuple(explained[first : first + size])

    def _gradients(self, points: Tensor, chunk: Sequence[int]) -> Tensor:
        """Return the gradients `(m, n, E, L)` of m targets at points `(n, E, L)`."""
        leaf = points.detach().requires_grad_()
        with torch.enable_grad(), self.mode(), self.model.head_inputs() as received:
            logits = self.model.logits(leaf, chunk[-1] - chunk[0] + 1)
        if len(points) > 1 and not self._rows_checked:
            self._rows_checked = rows_are_independent(self.model, points, logits)
            if not self._rows_checked:
                alone = [self._gradients(point, chunk) for point in points.split(1)]
                return torch.cat(alone, 1)
        with torch.enable_grad():
            rows = [number - chunk[0] for number in chunk]
            scores = self.targets.scores(widened(logits[:, rows]), chunk)
        self.passes["forward"] += len(points)
        self.passes["backward"] += len(points) * len(chunk)
        graph = _Graph(leaf, scores, received[-1] if received else None, chunk)
        if not self._proven:
            self._prove(graph)
        return graph.gradients(*self.ways[0])

    def _prove(self, graph: _Graph) -> None:
        """Drop the ways that fail or differ from a plain pass backward of one target."""
        plain = graph.plain()
        while len(self.ways) > 1:
            try:
                gradients = graph.gradients(*self.ways[0])[-1]
            except (RuntimeError, NotImplementedError, IndexError):  # no rule for a batch
                self.ways.pop(0)
                continue
            if _same(gradients, plain, self.model.whole.dtype):
                break
            self.ways.pop(0)
        self._proven = True

    def _measure(self) -> tuple[int, int]:
        """Return the bytes that a pass over all sources saves, and those of its largest tensor."""
        seen: dict[int, int] = {}

        def note(value: Tensor) -> Tensor:
            seen[value.untyped_storage().data_ptr()] = value.nbytes
            return value

        fixed = {value.untyped_storage().data_ptr() for value in self.model.parameters()}
        leaf = self.model.embeddings.detach().requires_grad_()
        hooks = torch.autograd.graph.saved_tensors_hooks(note, lambda value: value)
        with torch.enable_grad(), hooks, self.mode():
            self.model.logits(leaf, 1)
        sizes = [size for place, size in seen.items() if place not in fixed] or [leaf.nbytes]
        return sum(sizes), max(sizes)

    def _most_targets(self) -> int:
        """Return how many targets' gradients at one point fit into the memory."""
        return int(max(1, budget(self.model.ids.device) // (_LIVE * self.largest)))

    def _points_at_once(self, targets: int) -> int:
        """Return how many points a pass takes."""
        fitting = min(
            self._most_targets() // targets, budget(self.model.ids.device) // max(self.saved, 1)
        )
        return int(max(1, min(fitting, 8)))


@dataclass(frozen=True)
class _Graph:
    """A pass that has been run: from a leaf `(n, E, L)` to the scores `(n, m)` of m targets."""

    leaf: Tensor
    scores: Tensor
    hidden: Tensor | None
    chunk: Sequence[int]

    def plain(self) -> Tensor:
        """Return the gradient `(n, E, L)` of the last target."""
        return self._back(self.scores, _one_row(self.scores, -1))

    def gradients(self, source: str, how: str) -> Tensor:
        """Return the gradients `(m, n, E, L)` of all targets."""
        outputs, vectors = self._vectors(source)
        if how == "loop":
            return torch.stack([self._back(outputs, vector) for vector in vectors])
        return torch.autograd.grad(
            outputs, self.leaf, vectors, retain_graph=True, is_grads_batched=True
        )[0]

    def _vectors(self, source: str) -> tuple[Tensor, Tensor]:
        """Return what is differentiated, and a vector for each target, `(m, *outputs)`."""
        if source == "scores":
            rows = [_one_row(self.scores, row) for row in range(len(self.chunk))]
            return self.scores, torch.stack(rows)
        hidden = self.hidden
        if hidden is None or hidden.ndim != 3 or len(hidden) != len(self.leaf):
            raise NotImplementedError("the layer of the logits has other inputs")
        (gradient,) = torch.autograd.grad(self.scores.sum(), hidden, retain_graph=True)
        vectors = gradient.new_zeros(len(self.chunk), *gradient.shape)
        for row, number in enumerate(self.chunk):
            place = hidden.shape[1] - 1 - (self.chunk[-1] - number)
            vectors[row, :, place] = gradient[:, place]
        return hidden, vectors

    def _back(self, outputs: Tensor, vector: Tensor) -> Tensor:
        return torch.autograd.grad(outputs, self.leaf, vector, retain_graph=True)[0]


def _one_row(scores: Tensor, row: int) -> Tensor:
    vector = torch.zeros_like(scores)
    vector[:, row] = 1
    return vector


def _same(first: Tensor, second: Tensor, dtype: torch.dtype) -> bool:
    """Return whether gradients of a network in some precision are equal to rounding."""
    scale = float(second.abs().max())
    return bool((first - second).abs().max() <= rounding(dtype) * scale)


def widened(logits: Tensor) -> Tensor:
    """Return logits in float32 or wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@torch.no_grad()
def rows_are_independent(model: NextToken, points: Tensor, logits: Tensor, **more: Any) -> bool:
    """Return whether the last of some points has the same logits alone as in a batch.

    Args:
        model: of the next token.
        points: `(n, E, L)`.
        logits: `(n, count, V)`, of the batch.
        **more: further arguments of the network.
    """
    return agree(model.logits(points[-1:], logits.shape[1], **more), logits[-1:].detach())


def budget(device: torch.device) -> float:
    """Return the bytes that a batch may take on a device."""
    limit = _BYTES["cpu" if device.type == "cpu" else "other"]
    return min(limit, _SHARE_OF_FREE_MEMORY * free_memory(device))

"""Occlusion of each source for all targets at once: a pass serves every target after the source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import agree
from .next_token import NextToken
from .shared import budget, rows_are_independent, widened
from .targets import Targets


@dataclass
class SharedOcclusion:
    """How far each target's score falls when a source is replaced.

    In a causal model the tokens before the source stay as they are: their keys and values are
    computed once, where logits with them equal those without on the user's own text.

    Attributes:
        model: of the token after all sources of the last target.
        targets: to explain.
    """

    model: NextToken
    targets: Targets

    def __post_init__(self) -> None:
        self._cached: bool | None = False if self.model.start is not None else None
        self._alone: bool | None = None
        self.passes = {"forward": 0, "backward": 0}

    @property
    def cached(self) -> bool:
        """Whether keys and values are kept."""
        return bool(self._cached)

    @torch.no_grad()
    def __call__(self, baseline: Tensor) -> Tensor:
        """Return the falls of the scores `(T, L)`, in float64, for a baseline `(1, E, L)`."""
        embeddings, first = self.model.embeddings, self.targets.prompt_count
        length = embeddings.shape[-1]
        numbers = list(range(length - first + 1))
        logits = self.model.logits(embeddings, len(numbers))
        unmasked = self.targets.scores(widened(logits), numbers)
        falls = unmasked.new_zeros(len(self.targets.ids), length, dtype=torch.float64)
        for sources in self._blocks(length, logits.shape[-1] * len(numbers)):
            later = max(0, sources[0] - first + 1)  # the first target that has the source before it
            points = embeddings.repeat(len(sources), 1, 1)
            rows = torch.arange(len(sources))
            points[rows, :, sources] = baseline[0, :, sources].T
            logits = self._logits(points, sources[0], len(numbers) - later)
            scores = self.targets.scores(widened(logits), numbers[later:])
            falls[numbers[later] : len(numbers), sources] = (
                (unmasked[:, later:] - scores).double().T
            )
        return falls

    def _blocks(self, length: int, logits: int) -> Iterator[list[int]]:
        """Yield the sources in blocks whose passes fit into the memory."""
        row = 4 * (logits + 16 * self.model.whole[0].numel())
        size = int(max(1, min(16, budget(self.model.ids.device) // row)))
        for start in range(0, length, size):
            yield list(range(start, min(start + size, length)))

    def _logits(self, points: Tensor, start: int, count: int) -> Tensor:
        """Return logits at points whose first `start` sources are the text's own."""
        self.passes["forward"] += len(points)
        if start and self._cached:
            return self._with_cache(points, start, count)
        plain = self._plain(points, count)
        if not start or self._cached is False:
            return plain
        try:
            self._cached = agree(self._with_cache(points, start, count), plain)
        except Exception:  # caches of some models cannot be repeated, and fail in their own ways
            self._cached = False
        return plain

    def _plain(self, points: Tensor, count: int) -> Tensor:
        """Return logits without a cache; one by one where rows of a batch depend on each other."""
        if self._alone or len(points) == 1:
            return torch.cat([self.model.logits(point, count) for point in points.split(1)])
        logits = self.model.logits(points, count)
        if self._alone is None:
            self._alone = not rows_are_independent(self.model, points, logits)
            return self._plain(points, count) if self._alone else logits
        return logits

    def _with_cache(self, points: Tensor, start: int, count: int) -> Tensor:
        kept = self.model.cache(points[:1, :, :start], len(points))
        return self.model.logits(points[..., start:], count, **kept)

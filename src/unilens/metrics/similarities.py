"""How alike two maps are: what robustness, sanity and stability all ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..baselines.base import check_choice, check_number
from ..correlation import spearman
from ..errors import require
from ..numerics import wide
from ..registry import Card, Registry
from .maps import check_relevance, relevance_of

PER = ("pixel", "channel")
"""pixel: channels are summed; channel: every value of the map counts by itself."""


class Similarity(Protocol):
    """From two maps `(B, *S)` of the same inputs to how alike they are `(B,)`.

    1 where they are the same, NaN where one of them is constant.
    """

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how alike the maps are, in float64."""


similarities: Registry[Similarity] = Registry("similarity")


@dataclass(frozen=True)
class Compared:
    """What similarities share: how the maps are read.

    Args:
        relevance: "attribution", with the sign, or "saliency", absolute values.
        per: "pixel", summed over channels, or "channel", every value by itself.
    """

    relevance: str = "attribution"
    per: str = "pixel"

    def __post_init__(self) -> None:
        check_relevance(self.relevance)
        check_choice("per", self.per, PER)

    def _read(self, values: Tensor) -> Tensor:
        """Return maps `(B, *S)` as `(B, *places)`, or `(B, *S)` per channel, in float64."""
        if self.per == "pixel":
            return relevance_of(values, self.relevance)
        return wide(values.abs() if self.relevance == "saliency" else values)


@dataclass(frozen=True)
class Spearman(Compared):
    """The rank correlation of the maps' values, from -1 to 1.

    Args:
        relevance: see `Compared`.
        per: see `Compared`.
    """

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how alike the maps are; see `Similarity`."""
        return spearman(self._read(first).flatten(1), self._read(second).flatten(1))


@dataclass(frozen=True)
class TopK(Compared):
    """The share of the places that count most in one map that also count most in the other.

    Where places tie for the last of the k, each counts with its share: the order in memory decides
    nothing.

    Args:
        relevance: see `Compared`.
        per: see `Compared`.
        k: how many places; below 1 it is a fraction of them.
    """

    k: float = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("k", self.k, above=0)
        require(
            self.k < 1 or self.k == int(self.k),
            f"expected k to be a whole number, or a fraction below 1, got {self.k!r}",
        )

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return how alike the maps are; see `Similarity`."""
        rows = [self._read(values).flatten(1) for values in (first, second)]
        count = rows[0].shape[1]
        k = max(1, round(self.k * count)) if self.k < 1 else int(self.k)
        require(k < count, f"expected k below the map's {count} places, got {self.k}")
        shares = [_top_shares(row, k) for row in rows]
        value = torch.minimum(*shares).sum(1) / k
        undefined = torch.stack([(row == row[:, :1]).all(1) for row in rows]).any(0)
        return value.masked_fill(undefined, torch.nan)


def _top_shares(rows: Tensor, k: int) -> Tensor:
    """Return how much each value of `(B, n)` belongs to the k largest: 1, 0, or a share."""
    last = rows.topk(k, dim=1).values[:, -1:]
    above, tied = rows > last, rows == last
    share = wide(k - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    return wide(above) + share * wide(tied)


_GHORBANI = "Ghorbani et al. 2019, arXiv 1710.10547"
similarities.add(Card("spearman", "rank", "rank correlation", _GHORBANI), Spearman)
similarities.add(Card("top_k", "rank", "share of the k strongest in common", _GHORBANI), TopK)

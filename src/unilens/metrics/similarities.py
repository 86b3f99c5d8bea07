"""Similarities of two maps, for metrics of robustness, sanity and stability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d, max_pool2d, max_pool3d

from .._ops.correlation import spearman
from .._ops.precision import expand_like, to_float64
from .._validation.settings import Check, Count, Positive, Settings, check_number, one_of
from ..errors import NotApplicableError, require
from ..metrics.maps import Reduction
from ..registry import Card, Registry
from .maps import constant, reduce_channels

PER = ("pixel", "channel")
"""pixel: channels are summed; channel: every value of the map counts by itself."""


Similarity = Callable[[Tensor, Tensor], Tensor]
"""From two maps `(B, *S)` of the same inputs to their similarity `(B,)`, in float64.

1 where they are the same, NaN where one of them is constant.
"""
similarities: Registry[Similarity] = Registry("similarity")


def _check_top(name: str, k: object) -> None:
    number = check_number(name, k, above=0)
    require(
        number < 1 or number == int(number),
        f"expected {name} to be a whole number, or a fraction below 1, got {k!r}",
    )


Top = Annotated[float, Check(_check_top)]
"""A setting: a whole number of positions, or a fraction of them."""


@dataclass(frozen=True)
class MapSimilarity(Settings):
    """The base of similarities: how maps are reduced.

    Args:
        reduction: "sum", with the sign, or "abs", absolute values.
        per: "pixel", summed over channels, or "channel", every value by itself.
    """

    reduction: Reduction = "sum"
    per: Annotated[str, one_of(PER)] = "pixel"

    def _reduced(self, values: Tensor) -> Tensor:
        """Return maps `(B, *S)` as `(B, *spatial)`, or `(B, *S)` per channel, in float64."""
        if self.per == "pixel":
            return reduce_channels(values, self.reduction)
        return to_float64(values.abs() if self.reduction == "abs" else values)


@dataclass(frozen=True)
class Spearman(MapSimilarity):
    """The rank correlation of the maps' values, from -1 to 1.

    Args:
        reduction: see `MapSimilarity`.
        per: see `MapSimilarity`.
    """

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the similarities `(B,)`; see `Similarity`."""
        return spearman(self._reduced(first).flatten(1), self._reduced(second).flatten(1))


@dataclass(frozen=True)
class TopK(MapSimilarity):
    """The share of the top k positions of one map that are also in the other's top k.

    Positions that tie for the last of the k each count with their share: the order in memory
    decides nothing.

    Args:
        reduction: see `MapSimilarity`.
        per: see `MapSimilarity`.
        k: how many positions; below 1 a fraction of them; None for 1000, or a tenth of
            the positions where that is less.
    """

    k: Top | None = None

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the similarities `(B,)`; see `Similarity`."""
        rows = [self._reduced(values).flatten(1) for values in (first, second)]
        k = top_count(self.k, rows[0].shape[1])
        value = torch.minimum(*(top_shares(row, k) for row in rows)).sum(1) / k
        return value.masked_fill(constant(rows[0]) | constant(rows[1]), torch.nan)


@dataclass(frozen=True)
class LensRecall(TopK):
    """The share of the second map's top k that lie near a place of the first map's top k.

    LENS-recall@k: near is within a square window about it, so that a map which moves by a pixel is
    not called another. With a window of 1 it is `top_k`.

    Args:
        reduction: see `MapSimilarity`.
        per: see `MapSimilarity`; windows do not reach into other channels.
        k: see `TopK`.
        window: the side of the window, in positions; odd.

    References:
        Kamath et al. 2024, arXiv 2312.10534; their public code has windows of 3, 5 and 7.
    """

    window: Count = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.window % 2 == 1, f"expected an odd window, got {self.window}")

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the similarities `(B,)`; see `Similarity`."""
        _check_neighbours(first)
        maps = [self._reduced(values) for values in (first, second)]
        rows = [values.flatten(1) for values in maps]
        k = top_count(self.k, rows[0].shape[1])
        shares = [top_shares(row, k) for row in rows]
        dimensions = first.ndim - 2
        grid = shares[0].view(-1, 1, *maps[0].shape[-dimensions:])
        pool = {1: max_pool1d, 2: max_pool2d, 3: max_pool3d}[dimensions]
        near = pool(grid, self.window, stride=1, padding=self.window // 2).view_as(shares[0])
        value = torch.minimum(near, shares[1]).sum(1) / k
        return value.masked_fill(constant(rows[0]) | constant(rows[1]), torch.nan)


@dataclass(frozen=True)
class StructuralSimilarity(MapSimilarity):
    """The structural similarity of the maps as images, from -1 to 1.

    SSIM = (2 m1 m2 + c1) (2 s12 + c2) / ((m1^2 + m2^2 + c1) (s1^2 + s2^2 + c2)) from means,
    variances and covariance under a gaussian window, averaged over all windows that lie within the
    map. Maps have no scale of their own: each is first divided by its largest absolute value, and
    c1, c2 are those of the range that this leaves, 2 for "sum" and 1 for "abs".

    Args:
        reduction: see `MapSimilarity`.
        per: see `MapSimilarity`; "channel" is the mean over channels.
        sigma: standard deviation of the window, in positions; it is cut off at 3.5 of them.

    References:
        Wang et al. 2004, doi 10.1109/TIP.2003.819861.
    """

    sigma: Positive = 1.5

    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the similarities `(B,)`; see `Similarity`."""
        from skimage.metrics import structural_similarity  # here: it is slow to load

        _check_neighbours(first)
        maps = [self._reduced(values) for values in (first, second)]
        side = 2 * int(3.5 * self.sigma + 0.5) + 1
        require(
            min(first.shape[2:]) >= side,
            f"expected maps of at least {side} positions a side for sigma={self.sigma:g}, got "
            f"{tuple(first.shape[2:])}; lower sigma",
        )
        scaled = [(one / expand_like(one.abs().flatten(1).amax(1), one)).cpu() for one in maps]
        values = [
            structural_similarity(
                *pair,
                data_range=2 if self.reduction == "sum" else 1,
                channel_axis=0 if self.per == "channel" else None,
                gaussian_weights=True,
                sigma=self.sigma,
                use_sample_covariance=False,
            )
            for pair in zip(*(one.numpy() for one in scaled), strict=True)
        ]
        undefined = constant(maps[0]) | constant(maps[1])
        return torch.tensor(values).to(maps[0]).masked_fill(undefined, torch.nan)


def _check_neighbours(values: Tensor) -> None:
    """Raise `NotApplicableError` unless maps are of images, signals or volumes."""
    if not 3 <= values.ndim <= 5:
        raise NotApplicableError(
            f"expected maps of images (B, C, H, W) or signals (B, C, L), got "
            f"{tuple(values.shape)}; a table has no neighbours, use similarity='spearman'"
        )


def top_count(k: float | None, count: int) -> int:
    """Return how many positions are the top k.

    Args:
        k: how many; below 1 a fraction of them; None for 1000, or a tenth where that is less.
        count: of all positions.
    """
    if k is None:
        return max(1, min(1000, count // 10))
    number = max(1, round(k * count)) if k < 1 else int(k)
    require(
        number < count,
        f"expected k below the map's {count} positions, got {k}; a fraction such as k=0.02 will do",
    )
    return number


def top_shares(rows: Tensor, k: int) -> Tensor:
    """Return how much each value of `(B, n)` belongs to the k largest: 1, 0, or a share.

    >>> top_shares(torch.tensor([[3.0, 1.0, 1.0, 0.0]]), 2)
    tensor([[1.0000, 0.5000, 0.5000, 0.0000]], dtype=torch.float64)
    """
    last = rows.topk(k, dim=1).values[:, -1:]
    above, tied = rows > last, rows == last
    share = to_float64(k - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    return to_float64(above) + share * to_float64(tied)


_GHORBANI = "Ghorbani et al. 2019, arXiv 1710.10547"
similarities.add(Card("spearman", "rank", "rank correlation", _GHORBANI), Spearman)
similarities.add(Card("top_k", "rank", "share of the k strongest in common", _GHORBANI), TopK)
similarities.add(
    Card(
        "lens_recall",
        "rank",
        "share of the k strongest that lie near one of the other's",
        "Kamath et al. 2024, arXiv 2312.10534",
    ),
    LensRecall,
)
similarities.add(
    Card(
        "ssim",
        "image",
        "structural similarity",
        "Wang et al. 2004, doi 10.1109/TIP.2003.819861",
    ),
    StructuralSimilarity,
)

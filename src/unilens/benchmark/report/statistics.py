"""What values say: means with bootstrap intervals, and paired tests between methods."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy
from scipy import stats

Array = numpy.ndarray[Any, Any]

RESAMPLES = 2000
LEVEL = 0.95
"""Of the intervals."""
ALPHA = 0.05
"""Two methods are told apart where the adjusted p is below this."""
_COUNTED_AT_ONCE = 2**22
"""Numbers of images in resamples that are in memory together: 32 MiB."""
_KEPT = 2**27
"""Numbers of images in resamples that are kept from family to family, the most: 256 MiB."""
_TINY = 1e-12
_EXACT_UP_TO = 50
"""Differences; 2**50 sets of signs are counted exactly in float64."""


@dataclass(frozen=True, slots=True)
class Family:
    """The values of all methods under one metric and model: what is compared, image by image.

    Attributes:
        corruption: that the images went through; empty for none.
        severity: of the corruption; 0 for none.
        model: by name.
        metric: by name in the plan.
        methods: by name in the plan.
        values: `(images, methods)`; NaN where there is none.
        undefined: how many images the metric is undefined for, by method.
        inapplicable: how many images method or metric do not fit, by method.
        failed: how many images went wrong, by method.
    """

    corruption: str
    severity: int
    model: str
    metric: str
    methods: tuple[str, ...]
    values: Array
    undefined: tuple[int, ...]
    inapplicable: tuple[int, ...]
    failed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """One method's values: what is None is not to be had from so few.

    Attributes:
        method: by name in the plan.
        n: images with a value.
        undefined: images that the metric is undefined for.
        inapplicable: images that method or metric do not fit.
        failed: images that went wrong.
        mean: over the n.
        sd: with n - 1 in the denominator.
        median: over the n.
        low: the lower end of the 95 % bootstrap interval of the mean.
        high: its upper end.
    """

    method: str
    n: int
    undefined: int
    inapplicable: int
    failed: int
    mean: float | None = None
    sd: float | None = None
    median: float | None = None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two methods over the images where both have a value.

    Attributes:
        first: by name in the plan.
        second: likewise.
        n: images where both have a value.
        difference: the mean of first - second; None where n is 0.
        low: the lower end of its 95 % bootstrap interval; None where n is below 2.
        high: its upper end.
        effect: the rank-biserial correlation of the differences: 1 where first is always larger,
            -1 where second is; None where no difference is other than 0.
        p: of the Wilcoxon signed-rank test, two-sided; None where no difference is other than 0.
        adjusted: p by Holm's method, for all pairs of the family.
        least: the smallest adjusted p that n images can give.
    """

    first: str
    second: str
    n: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    effect: float | None = None
    p: float | None = None
    adjusted: float | None = None
    least: float = 1.0

    @property
    def told_apart(self) -> bool:
        """Whether the test says that the two differ."""
        return self.adjusted is not None and self.adjusted < ALPHA

    @property
    def same(self) -> bool:
        """Whether the two have the same value for every image they share."""
        return self.n > 0 and self.effect is None

    def seen_from(self, method: str) -> Pair:
        """Return the pair with this method first."""
        if method == self.first:
            return self
        turned = {"first": self.second, "second": self.first, "effect": _minus(self.effect)}
        ends = {"low": _minus(self.high), "high": _minus(self.low)}
        return replace(self, difference=_minus(self.difference), **turned, **ends)  # type: ignore[arg-type]


def analyse(family: Family, seed: int = 0) -> tuple[list[Summary], list[Pair]]:
    """Return the summary of each method, and the comparison of every two.

    Means and differences have 95 % percentile bootstrap intervals: images are drawn with
    replacement, the same ones for all methods, `RESAMPLES` times; an image without a value counts
    for nothing.

    Args:
        family: the values.
        seed: of the resampling.
    """
    means, differences = resampled(family.values, seed)
    summaries = [
        _summary(family, column, means[:, column]) for column in range(len(family.methods))
    ]
    order = list(itertools.combinations(range(len(family.methods)), 2))
    pairs = [_pair(family, i, j, differences[:, i, j]) for i, j in order]
    adjusted = holm([pair.p for pair in pairs])
    tested = sum(pair.p is not None for pair in pairs)
    return summaries, [
        replace(pair, adjusted=one, least=min(1.0, tested * 2.0 ** (1 - pair.n)))
        for pair, one in zip(pairs, adjusted, strict=True)
    ]


def resampled(values: Array, seed: int, resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """Return the means of bootstrap resamples of the images, and the mean paired differences.

    Args:
        values: `(n, k)`; NaN where there is none.
        seed: of the resampling.
        resamples: how many.

    Returns:
        `(resamples, k)` and `(resamples, k, k)`, the mean of column i - column j over the images
        drawn where both have a value; NaN where none was drawn.
    """
    k = values.shape[1]
    means, differences = numpy.empty((resamples, k)), numpy.empty((resamples, k, k))
    defined = numpy.isfinite(values)
    filled, there = numpy.where(defined, values, 0.0), defined.astype(float)
    seen: dict[bytes, int] = {}
    which = [seen.setdefault(mask.tobytes(), len(seen)) for mask in defined.T]
    masks = numpy.stack([there[:, which.index(number)] for number in range(len(seen))], axis=1)
    for rows, counts in _drawn(len(values), seed, resamples):
        with numpy.errstate(invalid="ignore", divide="ignore"):
            means[rows] = counts @ filled / (counts @ there)
            sums = _sums(counts, filled, masks)[:, :, which]
            shared = _sums(counts, there, masks)[:, :, which]
            differences[rows] = (sums - sums.transpose(0, 2, 1)) / shared
    return means, differences


def _sums(counts: Array, values: Array, masks: Array) -> Array:
    """Return the sums `(b, k, m)` of `(n, k)` values over resamples `(b, n)`, under each mask."""
    return numpy.stack([counts @ (values * mask[:, None]) for mask in masks.T], axis=-1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted by Holm's method; None stays None and does not count.

    In ascending order the i-th of m becomes max(what came before, (m - i + 1) p), 1 at the most.
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[place] = largest
    return adjusted


def signed_rank(differences: Array) -> tuple[float | None, float | None]:
    """Return the rank-biserial correlation and the p of the Wilcoxon signed-rank test, two-sided.

    Differences of 0 are left out, as Wilcoxon did; differences within 1e-12 of 0, relative to the
    largest, are rounding. Both are None where nothing is left. The p is exact for up to 50
    differences, ties among them included; of more, it is from the normal approximation.
    """
    largest = float(numpy.abs(differences).max(initial=0.0))
    moved = differences[numpy.abs(differences) > _TINY * largest]
    if not len(moved):
        return None, None
    ranks = stats.rankdata(numpy.abs(moved))
    effect = float((numpy.sign(moved) * ranks).sum() / ranks.sum())
    if len(moved) > _EXACT_UP_TO:
        return effect, float(stats.wilcoxon(moved, method="asymptotic").pvalue)
    return effect, _exact(ranks, float(ranks[moved > 0].sum()))


def _exact(ranks: Array, positive: float) -> float:
    """Return the share of all signs whose sum of positive ranks is as far from the middle.

    Ranks are doubled, so that those of ties are whole; ways[s] counts the sets of ranks of sum s.
    """
    doubled = numpy.rint(2 * ranks).astype(int)
    ways = numpy.zeros(doubled.sum() + 1)
    ways[0] = 1
    for rank in doubled:
        ways[rank:] += ways[:-rank].copy()
    reached = round(2 * positive)
    tail = min(ways[: reached + 1].sum(), ways[reached:].sum())
    return float(min(1.0, 2 * tail / ways.sum()))


def interval(means: Array) -> tuple[float | None, float | None]:
    """Return the ends of the percentile interval of resampled means, NaN left out."""
    found = means[numpy.isfinite(means)]
    if not len(found):
        return None, None
    low, high = numpy.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _drawn(n: int, seed: int, resamples: int) -> Iterator[tuple[slice, Array]]:
    """Yield how often each of n images is in each resample, some resamples at a time."""
    if n * resamples <= _KEPT:
        yield from ((rows, counts.astype(float)) for rows, counts in _kept(n, seed, resamples))
    else:
        yield from ((rows, counts.astype(float)) for rows, counts in _draw(n, seed, resamples))


@functools.lru_cache(1)
def _kept(n: int, seed: int, resamples: int) -> list[tuple[slice, Array]]:
    """Return all resamples: the families of a run have the same images, and share them."""
    return list(_draw(n, seed, resamples))


def _draw(n: int, seed: int, resamples: int) -> Iterator[tuple[slice, Array]]:
    random = numpy.random.default_rng(seed)
    at_once = max(1, _COUNTED_AT_ONCE // max(1, n))
    for first in range(0, resamples, at_once):
        some = min(at_once, resamples - first)
        drawn = random.integers(n, size=(some, n)) + n * numpy.arange(some)[:, None]
        counts = numpy.bincount(drawn.ravel(), minlength=some * n).reshape(some, n)
        yield slice(first, first + some), counts.astype(numpy.uint16)


def _summary(family: Family, column: int, means: Array) -> Summary:
    values = family.values[:, column]
    values = values[numpy.isfinite(values)]
    bare = Summary(
        method=family.methods[column],
        n=len(values),
        undefined=family.undefined[column],
        inapplicable=family.inapplicable[column],
        failed=family.failed[column],
    )
    if not len(values):
        return bare
    bare = replace(bare, mean=float(values.mean()), median=float(numpy.median(values)))
    if len(values) < 2:
        return bare
    low, high = interval(means)
    return replace(bare, sd=float(values.std(ddof=1)), low=low, high=high)


def _pair(family: Family, i: int, j: int, resamples: Array) -> Pair:
    difference = family.values[:, i] - family.values[:, j]
    difference = difference[numpy.isfinite(difference)]
    bare = Pair(family.methods[i], family.methods[j], len(difference))
    if not len(difference):
        return bare
    effect, p = signed_rank(difference)
    low, high = interval(resamples) if len(difference) > 1 else (None, None)
    mean = float(difference.mean())
    return replace(bare, difference=mean, low=low, high=high, effect=effect, p=p)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value

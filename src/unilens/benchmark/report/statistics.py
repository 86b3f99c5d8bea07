"""Means with bootstrap intervals, and paired tests between methods."""

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
"""Two methods differ significantly where the adjusted p is below this."""
_BATCH = 2**22
"""Counts of images in resamples that are in memory at once: 32 MiB."""
_CACHED = 2**27
"""Counts of images in resamples that are cached between families at most: 256 MiB."""
_TINY = 1e-12
_EXACT_UP_TO = 50
"""Differences; 2**50 sets of signs are counted exactly in float64."""


@dataclass(frozen=True, slots=True)
class Family:
    """The values of all methods under one metric and model, which are compared image by image.

    Attributes:
        corruption: of the images; empty for none.
        severity: of the corruption; 0 for none.
        model: by name.
        metric: by name in the plan.
        methods: by name in the plan.
        values: `(images, methods)`; NaN for missing ones.
        undefined: number of images for which the metric is undefined, by method.
        inapplicable: number of images to which method or metric do not apply, by method.
        failed: number of images with an error, by method.
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
    """The statistics of one method; None where there are too few values.

    Attributes:
        method: by name in the plan.
        n: images with a value.
        undefined: images for which the metric is undefined.
        inapplicable: images to which method or metric do not apply.
        failed: images with an error.
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
        min_p: the smallest adjusted p that n images can give.
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
    min_p: float = 1.0

    @property
    def significant(self) -> bool:
        """Whether the two differ significantly by the adjusted test."""
        return self.adjusted is not None and self.adjusted < ALPHA

    @property
    def same(self) -> bool:
        """Whether the two have equal values for every image they share."""
        return self.n > 0 and self.effect is None

    def starting_with(self, method: str) -> Pair:
        """Return the pair with this method first."""
        if method == self.first:
            return self
        swapped = {"first": self.second, "second": self.first, "effect": _minus(self.effect)}
        ends = {"low": _minus(self.high), "high": _minus(self.low)}
        return replace(self, difference=_minus(self.difference), **swapped, **ends)  # type: ignore[arg-type]


def analyse(family: Family, seed: int = 0) -> tuple[list[Summary], list[Pair]]:
    """Return the summary of each method, and the comparison of every two.

    Means and differences have 95 % percentile bootstrap intervals: images are drawn with
    replacement, the same ones for all methods, `RESAMPLES` times; an image without a value is
    left out.

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
        replace(pair, adjusted=p, min_p=min(1.0, tested * 2.0 ** (1 - pair.n)))
        for pair, p in zip(pairs, adjusted, strict=True)
    ]


def resampled(values: Array, seed: int, resamples: int = RESAMPLES) -> tuple[Array, Array]:
    """Return the means of bootstrap resamples of the images, and the mean paired differences.

    Args:
        values: `(n, k)`; NaN for missing ones.
        seed: of the resampling.
        resamples: how many.

    Returns:
        `(resamples, k)` and `(resamples, k, k)`, the mean of column i - column j over the images
        drawn where both have a value; NaN where none was drawn.
    """
    k = values.shape[1]
    means, differences = numpy.empty((resamples, k)), numpy.empty((resamples, k, k))
    defined = numpy.isfinite(values)
    filled, present = numpy.where(defined, values, 0.0), defined.astype(float)
    numbers: dict[bytes, int] = {}
    which = [numbers.setdefault(mask.tobytes(), len(numbers)) for mask in defined.T]
    masks = numpy.stack([present[:, which.index(number)] for number in range(len(numbers))], axis=1)
    for rows, counts in _drawn(len(values), seed, resamples):
        with numpy.errstate(invalid="ignore", divide="ignore"):
            means[rows] = counts @ filled / (counts @ present)
            sums = _sums(counts, filled, masks)[:, :, which]
            shared = _sums(counts, present, masks)[:, :, which]
            differences[rows] = (sums - sums.transpose(0, 2, 1)) / shared
    return means, differences


def _sums(counts: Array, values: Array, masks: Array) -> Array:
    """Return the sums `(b, k, m)` of `(n, k)` values over resamples `(b, n)`, under each mask."""
    return numpy.stack([counts @ (values * mask[:, None]) for mask in masks.T], axis=-1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p values adjusted by Holm's method; None stays None and does not count.

    In ascending order the i-th of m becomes max(its predecessor, (m - i + 1) p), at most 1.
    """
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[index] = largest
    return adjusted


def signed_rank(differences: Array) -> tuple[float | None, float | None]:
    """Return the rank-biserial correlation and the p of the Wilcoxon signed-rank test, two-sided.

    Differences of 0 are left out, as Wilcoxon did, and so are those within 1e-12 of the largest,
    which are rounding. Both are None if no difference is left. The p is exact for up to 50
    differences, ties among them included; of more, it is from the normal approximation.
    """
    largest = float(numpy.abs(differences).max(initial=0.0))
    nonzero = differences[numpy.abs(differences) > _TINY * largest]
    if not len(nonzero):
        return None, None
    ranks = stats.rankdata(numpy.abs(nonzero))
    effect = float((numpy.sign(nonzero) * ranks).sum() / ranks.sum())
    if len(nonzero) > _EXACT_UP_TO:
        return effect, float(stats.wilcoxon(nonzero, method="asymptotic").pvalue)
    return effect, _exact(ranks, float(ranks[nonzero > 0].sum()))


def _exact(ranks: Array, positive: float) -> float:
    """Return the share of all sign patterns whose sum of positive ranks is at least as extreme.

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
    finite = means[numpy.isfinite(means)]
    if not len(finite):
        return None, None
    low, high = numpy.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _drawn(n: int, seed: int, resamples: int) -> Iterator[tuple[slice, Array]]:
    """Yield the counts of n images in batches of resamples."""
    batches = (_cached if n * resamples <= _CACHED else _draw)(n, seed, resamples)
    yield from ((rows, counts.astype(float)) for rows, counts in batches)


@functools.lru_cache(1)
def _cached(n: int, seed: int, resamples: int) -> list[tuple[slice, Array]]:
    """Return all resamples; the families of a run have the same images and share them."""
    return list(_draw(n, seed, resamples))


def _draw(n: int, seed: int, resamples: int) -> Iterator[tuple[slice, Array]]:
    random = numpy.random.default_rng(seed)
    batch = max(1, _BATCH // max(1, n))
    for first in range(0, resamples, batch):
        size = min(batch, resamples - first)
        drawn = random.integers(n, size=(size, n)) + n * numpy.arange(size)[:, None]
        counts = numpy.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)
        yield slice(first, first + size), counts.astype(numpy.uint16)


def _summary(family: Family, column: int, means: Array) -> Summary:
    values = family.values[:, column]
    values = values[numpy.isfinite(values)]
    known = Summary(
        method=family.methods[column],
        n=len(values),
        undefined=family.undefined[column],
        inapplicable=family.inapplicable[column],
        failed=family.failed[column],
    )
    if not len(values):
        return known
    known = replace(known, mean=float(values.mean()), median=float(numpy.median(values)))
    if len(values) < 2:
        return known
    low, high = interval(means)
    return replace(known, sd=float(values.std(ddof=1)), low=low, high=high)


def _pair(family: Family, i: int, j: int, resamples: Array) -> Pair:
    difference = family.values[:, i] - family.values[:, j]
    difference = difference[numpy.isfinite(difference)]
    known = Pair(family.methods[i], family.methods[j], len(difference))
    if not len(difference):
        return known
    effect, p = signed_rank(difference)
    low, high = interval(resamples) if len(difference) > 1 else (None, None)
    mean = float(difference.mean())
    return replace(known, difference=mean, low=low, high=high, effect=effect, p=p)


def _minus(value: float | None) -> float | None:
    return None if value is None else -value

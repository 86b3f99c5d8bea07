"""Ranks of methods over the tables of models and metrics, with their critical difference."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy
from scipy import stats

from .findings import Result
from .statistics import ALPHA, Array

COLUMNS = ("scope", "name", "method", "mean_rank", "tables")
_FEWEST_TABLES, _FEWEST_METHODS = 2, 3


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranks of methods by their means, 1 for the best, in tables of a model and a metric.

    Attributes:
        methods: by their mean rank, the best first.
        tables: model and metric of each.
        ranks: `(tables, methods)`; methods with equal means share the mean of their ranks.
        missing_methods: those that do not fit every model, which have no rank.
        missing_metrics: those with a direction that do not have a mean of every ranked method.

    References:
        Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7, 2006.
    """

    methods: tuple[str, ...]
    tables: tuple[tuple[str, str], ...]
    ranks: Array
    missing_methods: tuple[str, ...] = ()
    missing_metrics: tuple[str, ...] = ()

    @property
    def means(self) -> list[float]:
        """The mean rank of each method."""
        return [float(mean) for mean in self.ranks.mean(0)]

    @property
    def p(self) -> float:
        """The p of Friedman's test, in the form of Iman and Davenport, that all rank alike."""
        count, methods = self.ranks.shape
        if (self.ranks == self.ranks[:, :1]).all():  # all methods tie in all tables
            return 1.0
        statistic = stats.friedmanchisquare(*self.ranks.T).statistic
        rest = count * (methods - 1) - statistic
        if rest <= 0:  # all tables agree
            return 0.0
        ratio = (count - 1) * statistic / rest
        return float(stats.f.sf(ratio, methods - 1, (methods - 1) * (count - 1)))

    @property
    def critical_difference(self) -> float:
        """The difference of mean ranks from which Nemenyi's test is significant at 0.05."""
        count, methods = self.ranks.shape
        studentised = float(stats.studentized_range.ppf(1 - ALPHA, methods, numpy.inf))
        return studentised / math.sqrt(2) * math.sqrt(methods * (methods + 1) / (6 * count))

    @property
    def groups(self) -> list[tuple[int, int]]:
        """First and last of the largest groups of methods that do not differ significantly.

        There are none where Friedman's test finds no difference at all.
        """
        if self.p >= ALPHA:
            return []
        means, found = self.means, list[tuple[int, int]]()
        for first in range(len(means)):
            within = [mean - means[first] < self.critical_difference for mean in means]
            last = max(index for index, near in enumerate(within) if near)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found

    def of(self, models: Sequence[str], metrics: Sequence[str]) -> dict[str, list[float]]:
        """Return the mean ranks of the methods in each model's and in each metric's tables."""
        found = {}
        for place, names in enumerate((models, metrics)):
            for name in names:
                rows = [row for row, table in enumerate(self.tables) if table[place] == name]
                if rows:
                    found[name] = [float(mean) for mean in self.ranks[rows].mean(0)]
        return found


def ranking(results: Sequence[Result]) -> Ranking | None:
    """Return the ranks over the tables of metrics with a direction; None where there are too few.

    Ranked are the methods with a mean for every model, in the tables of those metrics that have a
    mean of each of them for every model.

    Args:
        results: of one condition of the images.
    """
    means = {
        (result.family.model, result.family.metric): _signed_means(result)
        for result in results
        if result.card.higher_is_better is not None
    }
    models = list(dict.fromkeys(model for model, _ in means))
    by_model = [
        {method for (model, _), values in means.items() if model == own for method in values}
        for own in models
    ]
    every = list(dict.fromkeys(method for values in means.values() for method in values))
    methods = [method for method in every if all(method in known for known in by_model)]
    partial = {metric for (_, metric), values in means.items() if not values.keys() >= {*methods}}
    tables = [table for table in means if table[1] not in partial]
    if len(tables) < _FEWEST_TABLES or len(methods) < _FEWEST_METHODS:
        return None
    values = numpy.array([[means[table][method] for method in methods] for table in tables])
    ranks = stats.rankdata(values, axis=1)
    order = numpy.argsort(ranks.mean(0), kind="stable")
    return Ranking(
        tuple(methods[index] for index in order),
        tuple(tables),
        ranks[:, order],
        tuple(method for method in every if method not in methods),
        tuple(metric for metric in dict.fromkeys(name for _, name in means) if metric in partial),
    )


def rank_rows(
    ranked: Ranking, models: Sequence[str], metrics: Sequence[str]
) -> Iterator[list[object]]:
    """Yield the rows of `ranks.csv`: mean ranks over all tables, by model and by metric."""
    for method, mean in zip(ranked.methods, ranked.means, strict=True):
        yield ["all", "", method, mean, len(ranked.tables)]
    for scope, names in (("model", models), ("metric", metrics)):
        found = ranked.of(models if scope == "model" else (), metrics if scope == "metric" else ())
        for name in names:
            count = sum(name in table for table in ranked.tables)
            for method, mean in zip(ranked.methods, found.get(name, ()), strict=False):
                yield [scope, name, method, mean, count]


def _signed_means(result: Result) -> dict[str, float]:
    """Return the means of methods that have one, negative where higher is better."""
    sign = -1 if result.card.higher_is_better else 1
    return {summary.method: sign * (summary.mean or 0.0) for summary in result.ranked}

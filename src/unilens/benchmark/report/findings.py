"""The statistics in words: which methods lead, and what the data do not support."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...metrics import MetricCard
from ..plan import Plan
from .statistics import ALPHA, Family, Pair, Summary

_FEW = 30
"""Number of images below which the report warns that they are few."""
_SINGLE_IMPUTER = ("insertion_auc", "deletion_auc", "mu_fidelity", "mu_fidelity_abs")


@dataclass(frozen=True)
class Result:
    """One family with its statistics, relative to the method with the best mean.

    Attributes:
        family: the values.
        card: of the metric.
        summaries: one per method.
        pairs: all pairs of methods.
        leader: the method with the best mean; None where no method has values, or the metric has
            no direction.
    """

    family: Family
    card: MetricCard
    summaries: Sequence[Summary]
    pairs: Sequence[Pair]
    leader: str | None = None

    @property
    def ranked(self) -> list[Summary]:
        """The methods with a mean, the best first; in the plan's order without a direction."""
        ranked = [summary for summary in self.summaries if summary.mean is not None]
        if self.card.higher_is_better is None:
            return ranked
        sign = -1 if self.card.higher_is_better else 1
        return sorted(ranked, key=lambda summary: sign * (summary.mean or 0.0))

    def against(self, method: str) -> Pair | None:
        """Return the leader's pair with a method, the leader first."""
        if self.leader is None or method == self.leader:
            return None
        for pair in self.pairs:
            if {pair.first, pair.second} == {self.leader, method}:
                return pair.starting_with(self.leader)
        return None

    def standing(self, method: str) -> str:
        """Return a method's standing relative to the leader.

        `leader`; `level`, not significantly different from it; `behind`, significantly worse;
        `contrary`, significantly different, with a worse mean but better on most images;
        `unpaired`, without a common image; empty without values or a leader.
        """
        ranked = {summary.method for summary in self.ranked}
        if self.leader is None or method not in ranked:
            return ""
        pair = self.against(method)
        if pair is None:
            return "leader"
        if pair.n == 0:
            return "unpaired"
        if not pair.significant or pair.effect is None:
            return "level"
        sign = 1 if self.card.higher_is_better else -1
        return "behind" if sign * pair.effect > 0 else "contrary"

    def methods_with(self, standing: str) -> list[str]:
        """Return the methods of a standing, the best mean first."""
        return [
            summary.method for summary in self.ranked if self.standing(summary.method) == standing
        ]

    @property
    def clear(self) -> bool:
        """Whether the leader is significantly better than every other method with values."""
        others = self.ranked[1:]
        behind = [self.standing(summary.method) == "behind" for summary in others]
        return self.leader is not None and bool(behind) and all(behind)

    @property
    def powerless(self) -> bool:
        """Whether there are too few images for any significant difference."""
        smallest = [pair.min_p for pair in self.pairs if pair.n]
        return bool(smallest) and min(smallest) >= ALPHA


def result_of(
    family: Family, card: MetricCard, analysed: tuple[Sequence[Summary], Sequence[Pair]]
) -> Result:
    """Return a family with its statistics and its leader."""
    result = Result(family, card, *analysed)
    ranked = result.ranked
    has_leader = bool(ranked) and card.higher_is_better is not None
    return replace(result, leader=ranked[0].method if has_leader else None)


def overall(results: Iterable[Result]) -> list[str]:
    """Return sentences about all metrics and models together."""
    led = [result for result in results if result.leader is not None]
    if not led:
        return ["No metric has a leader: there are no values, or the metrics have no direction."]
    tables = f"{len(led)} tables of metric and model"
    clear = Counter(str(result.leader) for result in led if result.clear)
    first = Counter(str(result.leader) for result in led)
    if len(led) == 1:
        sentences = ["One metric on one model: another method may lead elsewhere."]
    elif len(first) == 1:
        sentences = [f"{next(iter(first))} has the best mean in all {tables}."]
    else:
        counted = ", ".join(f"{method} in {count}" for method, count in first.most_common())
        sentences = [
            f"The metrics and models do not agree: of {tables}, the best mean is that of {counted}."
        ]
    if not clear:
        sentences.append("In none of them does the best differ significantly from all others.")
    else:
        counted = ", ".join(f"{method} in {count}" for method, count in clear.most_common())
        sentences.append(f"Significantly better than every other method: {counted}.")
    return sentences


def uni_against_others(results: Iterable[Result], unis: Iterable[str]) -> list[str]:
    """Return how often each UNI of the plan leads, is level, and is behind."""
    led = [result for result in results if result.leader is not None]
    sentences = []
    for method in unis:
        count = Counter(result.standing(method) for result in led)
        total = sum(count.values()) - count[""]
        if total:
            level = count["level"] + count["unpaired"]
            behind = count["behind"] + count["contrary"]
            sentences.append(
                f"{method}: of {total} tables it has the best mean in {count['leader']}, does not "
                f"differ significantly from the best in {level}, and differs significantly from "
                f"it, with a worse mean, in {behind}."
            )
    return sentences


def remarks(plan: Plan, results: Sequence[Result], images: int, failed: int) -> list[str]:
    """Return warnings: missing controls, few images, failed rows."""
    specs = plan.metric_specs
    names = {spec.name for spec in specs.values()}
    sentences = []
    if plan.random_weights:
        sentences.append("The models have random weights: nothing here is about a trained network.")
    if images < _FEW:
        sentences.append(
            f"{images} images are few: their intervals are too narrow, and small "
            "differences are not significant."
        )
    powerless = sum(result.powerless for result in results)
    if powerless:
        sentences.append(
            f"In {powerless} of {len(results)} tables no difference, however large, could be "
            "significant: with so many methods the test needs more images."
        )
    if any(name.startswith(("attack_", "fgsm_")) for name in names) and not any(
        name.startswith("noise_") for name in names
    ):
        sentences.append(
            "Control missing: similarity under attack means little without random noise of the "
            "same radius (noise_spearman, noise_top_k)."
        )
    families = {plan.card(metric).family for metric in plan.metrics}
    if "sanity" not in families:
        sentences.append(
            "Control missing: no metric tests whether maps depend on the model's weights at all "
            "(randomisation_cascading, random_logit)."
        )
    single = [
        text
        for text, spec in specs.items()
        if spec.name in _SINGLE_IMPUTER and not isinstance(spec.settings.get("imputer"), list)
    ]
    if single:
        sentences.append(
            f"One imputer each: {', '.join(single)}. The order of methods can depend on the values "
            "of removed pixels; imputer=[black,blur,...] takes several."
        )
    uneven = {result.family.metric for result in results if _uneven(result)}
    if uneven:
        sentences.append(
            f"Means over different images: not every method has a value everywhere under "
            f"{', '.join(sorted(uneven))}; the paired tests use common images only."
        )
    if failed:
        sentences.append(f"{failed} rows failed and count in no mean; the reasons are below.")
    return sentences


def _uneven(result: Result) -> bool:
    return len({summary.n for summary in result.summaries if summary.n}) > 1

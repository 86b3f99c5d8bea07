"""What the statistics say in words: who leads, who is not told apart, and what not to conclude."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ...metrics import MetricCard
from ..plan import Plan
from .statistics import ALPHA, Family, Pair, Summary

_FEW = 30
"""Images below which a reader is told that they are few."""
_SINGLE_IMPUTER = ("insertion_auc", "deletion_auc", "mu_fidelity", "mu_fidelity_abs")


@dataclass(frozen=True)
class Result:
    """One family with its statistics, seen from the method with the best mean.

    Attributes:
        family: the values.
        card: of the metric.
        summaries: one per method.
        pairs: of every two methods.
        leader: the method with the best mean; None where no method has values, or neither end of
            the metric is good.
    """

    family: Family
    card: MetricCard
    summaries: Sequence[Summary]
    pairs: Sequence[Pair]
    leader: str | None = None

    @property
    def ranked(self) -> list[Summary]:
        """The methods that have a mean, the best first; as they come where no end is good."""
        found = [one for one in self.summaries if one.mean is not None]
        if self.card.higher_is_better is None:
            return found
        sign = -1 if self.card.higher_is_better else 1
        return sorted(found, key=lambda one: sign * (one.mean or 0.0))

    def against(self, method: str) -> Pair | None:
        """Return the leader's pair with a method, the leader first."""
        if self.leader is None or method == self.leader:
            return None
        for pair in self.pairs:
            if {pair.first, pair.second} == {self.leader, method}:
                return pair.seen_from(self.leader)
        return None

    def standing(self, method: str) -> str:
        """Return how a method stands to the leader.

        `leader`; `level`, not told apart from it; `behind`, told apart; `contrary`, told apart but
        better on most of the images that count; `unpaired`, without a value on a common image;
        empty where the method has no values, or there is no leader.
        """
        known = {one.method for one in self.ranked}
        if self.leader is None or method not in known:
            return ""
        pair = self.against(method)
        if pair is None:
            return "leader"
        if pair.n == 0:
            return "unpaired"
        if not pair.told_apart or pair.effect is None:
            return "level"
        sign = 1 if self.card.higher_is_better else -1
        return "behind" if sign * pair.effect > 0 else "contrary"

    def those(self, standing: str) -> list[str]:
        """Return the methods of a standing, the best mean first."""
        return [one.method for one in self.ranked if self.standing(one.method) == standing]

    @property
    def clear(self) -> bool:
        """Whether every other method with values is told apart from the leader, and behind it."""
        others = self.ranked[1:]
        behind = [self.standing(one.method) == "behind" for one in others]
        return self.leader is not None and bool(behind) and all(behind)

    @property
    def powerless(self) -> bool:
        """Whether no difference at all could have been told apart: there are too few images."""
        least = [pair.least for pair in self.pairs if pair.n]
        return bool(least) and min(least) >= ALPHA


def result_of(
    family: Family, card: MetricCard, analysed: tuple[Sequence[Summary], Sequence[Pair]]
) -> Result:
    """Return a family with its statistics and its leader."""
    result = Result(family, card, *analysed)
    ranked = result.ranked
    led = bool(ranked) and card.higher_is_better is not None
    return replace(result, leader=ranked[0].method if led else None)


def overall(results: Iterable[Result]) -> list[str]:
    """Return what holds across metrics and models, in sentences."""
    led = [one for one in results if one.leader is not None]
    if not led:
        return ["No metric has a leader: there are no values, or neither end of them is good."]
    tables = f"{len(led)} tables of metric and model"
    clear = Counter(str(one.leader) for one in led if one.clear)
    first = Counter(str(one.leader) for one in led)
    if len(led) == 1:
        said = ["One metric on one model: what leads here may not lead elsewhere."]
    elif len(first) == 1:
        said = [f"{next(iter(first))} has the best mean in all {tables}."]
    else:
        counted = ", ".join(f"{method} in {count}" for method, count in first.most_common())
        said = [
            f"The metrics and models do not agree: of {tables}, the best mean is that of {counted}."
        ]
    if not clear:
        said.append("In none of them is the best told apart from all others by the paired test.")
    else:
        counted = ", ".join(f"{method} in {count}" for method, count in clear.most_common())
        said.append(f"Told apart from every other method, with the best mean: {counted}.")
    return said


def uni_against_others(results: Iterable[Result], unis: Iterable[str]) -> list[str]:
    """Return, for each UNI of the plan, how often it leads, is level, and is behind."""
    led = [one for one in results if one.leader is not None]
    said = []
    for method in unis:
        count = Counter(one.standing(method) for one in led)
        total = sum(count.values()) - count[""]
        if total:
            said.append(
                f"{method}: of {total} tables it has the best mean in {count['leader']}, is not "
                f"told apart from the best in {count['level'] + count['unpaired']}, and is told "
                f"apart from it, with a worse mean, in {count['behind'] + count['contrary']}."
            )
    return said


def remarks(plan: Plan, results: Sequence[Result], images: int, failed: int) -> list[str]:
    """Return what is missing, few or one-sided, so that nobody concludes more than there is."""
    specs = plan.metric_specs
    names = {spec.name for spec in specs.values()}
    said = []
    if plan.random_weights:
        said.append("The models have random weights: nothing here is about a trained network.")
    if images < _FEW:
        said.append(
            f"{images} images are few: intervals from so few come out too narrow, and small "
            "differences cannot be told apart."
        )
    powerless = sum(one.powerless for one in results)
    if powerless:
        said.append(
            f"In {powerless} of {len(results)} tables no difference, however large, could have "
            "been told apart: with so many methods the test needs more images."
        )
    if any(name.startswith(("attack_", "fgsm_")) for name in names) and not any(
        name.startswith("noise_") for name in names
    ):
        said.append(
            "Control missing: how maps stand an attack means little without random noise of the "
            "same radius (noise_spearman, noise_top_k)."
        )
    families = {plan.card(metric).family for metric in plan.metrics}
    if "sanity" not in families:
        said.append(
            "Control missing: no metric here asks whether maps depend on the model's weights at "
            "all (randomisation_cascading, random_logit)."
        )
    single = [
        text
        for text, spec in specs.items()
        if spec.name in _SINGLE_IMPUTER and not isinstance(spec.settings.get("imputer"), list)
    ]
    if single:
        said.append(
            f"One imputer each: {', '.join(single)}. What stands for a missing pixel can turn the "
            "order of methods round; imputer=[black,blur,...] takes several."
        )
    uneven = {one.family.metric for one in results if _uneven(one)}
    if uneven:
        said.append(
            f"Means over different images: not every method has a value everywhere under "
            f"{', '.join(sorted(uneven))}; the paired tests use common images only."
        )
    if failed:
        said.append(f"{failed} rows failed and count in no mean: see what went wrong, below.")
    return said


def _uneven(result: Result) -> bool:
    return len({one.n for one in result.summaries if one.n}) > 1

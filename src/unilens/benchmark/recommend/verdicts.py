"""The verdict on each purpose: the method to use, how sure that is, and which are worse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy

from ..report.statistics import (
    ALPHA,
    Array,
    Family,
    Pair,
    analyse,
    holm,
    interval,
    resampled,
    signed_rank,
)
from .measured import Measured, means
from .purposes import CONTROLS, COST, RACED, STABILITY, Purpose
from .race import Race

LEAST_EVIDENCE = 0.1
"""Mean confidence that blurred photographs must lose for there to be anything to explain."""
BEST, NONE, UNDECIDED = "best", "none", "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found out for one purpose.

    Attributes:
        purpose: by name.
        status: `best`, a method is recommended; `none`, no method is to be trusted; `undecided`,
            there are too few photographs or there was too little time.
        method: that is recommended; None for the other two.
        n: photographs of the test.
        needed: photographs that a test of so many methods takes at least.
        probability: share of the resampled sets of photographs in which the method has the best
            mean of all finalists; None where nothing was measured.
        leading: the method with the best mean, whether or not it can be trusted.
        control: the control with the best mean.
        gain: mean difference of `leading` and that control, with the ends of its 95 % interval.
        p: that `leading` is no better than a control, adjusted for all finalists.
        level: finalists that are not significantly worse than the method.
        worse: those that are.
        behind: methods that left the race before the final: not tested.
        evidence: mean confidence that the photographs lose when they are blurred.
        nothing: whether that is so little that there is nothing to explain.
        seconds: per map, of the method.
        serves: of `cost`, the purposes at which the method is not significantly worse.
        command: to run next.
    """

    purpose: str
    status: str
    method: str | None = None
    n: int = 0
    needed: int = 0
    probability: float | None = None
    leading: str | None = None
    control: str | None = None
    gain: tuple[float, float, float] | None = None
    p: float | None = None
    level: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    behind: tuple[str, ...] = ()
    evidence: float | None = None
    nothing: bool = False
    seconds: float | None = None
    serves: tuple[str, ...] = ()
    command: str = ""


def verdicts_of(race: Race, seed: int) -> dict[str, Verdict]:
    """Return the verdicts on a race, by purpose.

    The photographs that chose the finalists are not those that test them. A method is trusted if it
    is significantly better than each control, by the one-sided Wilcoxon signed-rank test, adjusted
    by Holm's method for all finalists; two finalists differ if the two-sided test, adjusted for all
    pairs of them, says so.

    Args:
        race: that was run.
        seed: of the resampling.
    """
    measured, names = race.measured, race.deciding
    lost = measured.evidence(names, CONTROLS[0])
    evidence = float(numpy.nanmean(lost)) if numpy.isfinite(lost).any() else None
    nothing = evidence is not None and _surely_below(lost, LEAST_EVIDENCE, seed)
    finals = {
        purpose.name: _Final(
            purpose, names, race.finalists[purpose.name], race, seed, evidence, nothing
        )
        for purpose in RACED
    }
    verdicts = {name: final.verdict() for name, final in finals.items()}
    trusted = {m for name, final in finals.items() for m in final.trusted}
    stable = [method for method in race.contenders if method in trusted]
    final = _Final(STABILITY, race.stable, stable, race, seed, evidence, nothing)
    verdicts[STABILITY.name] = final.verdict()
    verdicts[COST.name] = _cheapest(verdicts, finals, measured, evidence)
    return verdicts


def fewest(methods: int) -> int:
    """Return the photographs from which one of so many methods can be better than the controls."""
    return math.ceil(math.log2(max(1, methods) / ALPHA))


@dataclass
class _Final:
    """The finalists of one purpose and the controls, on the photographs that test them."""

    purpose: Purpose
    photographs: Sequence[str]
    entered: Sequence[str]
    race: Race
    seed: int
    evidence: float | None
    nothing: bool
    methods: list[str] = field(default_factory=list)
    trusted: list[str] = field(default_factory=list)
    adjusted: Mapping[str, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.methods = [name for name in self.entered if name not in self.race.left_out]
        controls = self.race.controls
        self.values = self.race.measured.values(
            self.photographs, [*self.methods, *controls], self.purpose
        )
        self.means = means(self.values)
        p_values = [self._p_of(column) for column in range(len(self.methods))]
        self.adjusted = dict(zip(self.methods, holm(p_values), strict=True))
        if not self.nothing and controls:
            self.trusted = [
                name for name, p in self.adjusted.items() if p is not None and p < ALPHA
            ]

    def _p_of(self, column: int) -> float | None:
        """Return the larger of the one-sided p values against the controls."""
        k, p_values = len(self.methods), []
        for control in range(k, self.values.shape[1]):
            difference = self.values[:, column] - self.values[:, control]
            effect, p = signed_rank(difference[numpy.isfinite(difference)])
            p_values.append(1.0 if p is None or effect is None or effect <= 0 else p / 2)
        return max(p_values) if p_values else None

    def verdict(self) -> Verdict:
        """Return the verdict on this purpose."""
        k, n = len(self.methods), len(self.photographs)
        behind = () if self.purpose is STABILITY else self._behind()
        needed = fewest(k)
        verdict = Verdict(
            self.purpose.name, UNDECIDED, n=n, needed=needed, behind=behind, evidence=self.evidence
        )
        if self.nothing:
            return replace(verdict, status=NONE, nothing=True)
        ranked = [int(column) for column in numpy.argsort(-self.means[:k], kind="stable")]
        ranked = [column for column in ranked if math.isfinite(self.means[column])]
        if not ranked:
            return verdict
        first = next((c for c in ranked if self.methods[c] in self.trusted), ranked[0])
        leading = self.methods[first]
        drawn, _ = resampled(self.values[:, :k], self.seed)
        filled = numpy.where(numpy.isfinite(drawn), drawn, -numpy.inf)
        level, worse = self._others(leading)
        verdict = replace(
            verdict,
            leading=leading,
            probability=float((filled.argmax(1) == first).mean()),
            p=self.adjusted.get(leading),
            seconds=self.race.measured.seconds(leading),
            **self._gain(first),
        )
        if leading in self.trusted:
            return replace(verdict, status=BEST, method=leading, level=level, worse=worse)
        return verdict if n < needed else replace(verdict, status=NONE)

    def _gain(self, column: int) -> dict[str, Any]:
        """Return the mean difference from the best control, with its interval."""
        controls = self.means[len(self.methods) :]
        if not len(controls) or not numpy.isfinite(controls).any():
            return {}
        best = len(self.methods) + int(controls.argmax())
        difference = self.values[:, column] - self.values[:, best]
        difference = difference[numpy.isfinite(difference)]
        if not len(difference):
            return {}
        drawn, _ = resampled(difference[:, None], self.seed)
        low, high = interval(drawn[:, 0])
        gain = None if low is None or high is None else (float(difference.mean()), low, high)
        return {"control": self.race.controls[best - len(self.methods)], "gain": gain}

    def _others(self, leading: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the finalists that are level with a method, and those significantly worse."""
        k = len(self.methods)
        pairs = pairs_of(self.methods, self.values[:, :k], self.purpose.name, self.seed)
        level: list[str] = []
        worse: list[str] = []
        order = sorted(range(k), key=lambda column: -self.means[column])
        for name in (self.methods[column] for column in order):
            if name == leading or not math.isfinite(self.means[self.methods.index(name)]):
                continue
            pair = pairs[frozenset((name, leading))].starting_with(leading)
            is_worse = pair.significant and (pair.effect or 0.0) > 0
            (worse if is_worse else level).append(name)
        return tuple(level), tuple(worse)

    def _behind(self) -> tuple[str, ...]:
        return tuple(
            name
            for name in self.race.methods
            if name not in self.entered
            and name not in self.race.left_out
            and name not in self.race.slow
        )


def pairs_of(
    methods: Sequence[str], values: Array, metric: str, seed: int
) -> dict[frozenset[str], Pair]:
    """Return the comparisons of all pairs of methods, from values `(photographs, methods)`."""
    zeros = (0,) * len(methods)
    family = Family("", 0, "", metric, tuple(methods), values, zeros, zeros, zeros)
    _, pairs = analyse(family, seed)
    return {frozenset((pair.first, pair.second)): pair for pair in pairs}


def _surely_below(values: Array, bound: float, seed: int) -> bool:
    """Whether the interval of a mean lies below a bound."""
    finite = values[numpy.isfinite(values)]
    if not len(finite):
        return False
    drawn, _ = resampled(finite[:, None], seed)
    high = interval(drawn[:, 0])[1]
    return high is not None and high < bound


def _cheapest(
    verdicts: Mapping[str, Verdict],
    finals: Mapping[str, _Final],
    measured: Measured,
    evidence: float | None,
) -> Verdict:
    """Return the verdict on cost: the fastest of the trusted methods that are level with a best."""
    raced = [verdicts[purpose.name] for purpose in RACED]
    n, needed = max(v.n for v in raced), max(v.needed for v in raced)
    serves: dict[str, list[str]] = {}
    for verdict in raced:
        level = [name for name in verdict.level if name in finals[verdict.purpose].trusted]
        for name in [verdict.method, *level] if verdict.method else []:
            serves.setdefault(str(name), []).append(verdict.purpose)
    seconds = {name: measured.seconds(name) or math.inf for name in serves}
    if not serves:
        statuses = {verdict.status for verdict in raced}
        status = UNDECIDED if UNDECIDED in statuses else NONE
        nothing = all(verdict.nothing for verdict in raced)
        return Verdict(COST.name, status, n=n, needed=needed, evidence=evidence, nothing=nothing)
    order = sorted(serves, key=seconds.__getitem__)
    return Verdict(
        COST.name,
        BEST,
        order[0],
        n=n,
        needed=needed,
        leading=order[0],
        level=tuple(order[1:]),
        evidence=evidence,
        seconds=seconds[order[0]],
        serves=tuple(serves[order[0]]),
    )

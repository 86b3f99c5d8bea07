"""What an audit found over all photographs: suspected shortcuts, trust, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from scipy import stats

from .measure import CONTROLS, Facts
from .regions import BACKGROUND, BORDER, CORNERS, TEXT
from .run import Audit

FEWEST = 8
"""Photographs below which nothing is concluded about a region."""
LEVEL = 0.95
_RESAMPLES = 2000
_LARGE_FALL = 0.05
"""Mean fall of the confidence, beyond that of mirror images, from which an answer depends."""
_SURE = 0.01
"""Largest p of Fisher's exact test for a mark that goes with one answer."""
Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over photographs with its bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float], level: float = LEVEL) -> Estimate:
        """Return the mean of values with its interval; NaN without values."""
        array = numpy.asarray(list(values), dtype=float)
        if not len(array):
            return cls(numpy.nan, numpy.nan, numpy.nan, 0)
        draws = numpy.random.default_rng(0).integers(len(array), size=(_RESAMPLES, len(array)))
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = numpy.quantile(array[draws].mean(1), tails)
        return cls(float(array.mean()), float(low), float(high), len(array))


@dataclass(frozen=True, slots=True)
class Association:
    """The answer that photographs with a mark get more often than others."""

    label: str
    with_mark: int
    of_marked: int
    without_mark: int
    of_others: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """A region that could be a shortcut.

    Attributes:
        name: of the region.
        place: in words, with its article.
        is_mark: whether it is a pattern that photographs share.
        n: photographs that have it.
        share: of the maps.
        references: shares by chance: of the area, of the photograph's outlines, of mirror images.
        looks: whether the share is above each of them, beyond chance.
        fall: of the confidence when it is covered, minus that of mirror images; None where it was
            not covered.
        changed: photographs that get another answer when it is covered.
        depends: whether the fall is large, beyond chance.
        association: of a mark with an answer.
        seen: whether the model's view shows it.
    """

    name: str
    place: str
    is_mark: bool
    n: int
    share: Estimate
    references: Mapping[str, float]
    looks: bool
    fall: Estimate | None = None
    changed: int = 0
    depends: bool = False
    association: Association | None = None
    seen: bool = True

    @property
    def cleared(self) -> bool:
        """Whether a large fall is ruled out, from enough photographs."""
        return self.fall is not None and self.fall.n >= FEWEST and self.fall.high < _LARGE_FALL

    @property
    def level(self) -> str:
        """One of "problem", "caution" and "info"; empty for a region that raises no suspicion."""
        if self.is_mark:
            doubtful = self.looks or self.association is not None
            return "problem" if self.depends else "caution" if doubtful else "info"
        return "caution" if self.looks or self.depends else ""


@dataclass(frozen=True, slots=True)
class Trust:
    """How well a method's maps predict what the model needs.

    Attributes:
        method: by name.
        gains: over the controls, insertion minus deletion AUC.
        usable: photographs whose map has a verdict that it can be used.
        checked: photographs whose map can have such a verdict.
    """

    method: str
    gains: Mapping[str, Estimate]
    usable: int
    checked: int

    @property
    def level(self) -> str:
        """Empty if better than all controls, "caution" if than some, "problem" if than none."""
        better = [gain.low > 0 for gain in self.gains.values()]
        return "" if all(better) else "caution" if any(better) else "problem"


@dataclass(frozen=True)
class Findings:
    """All that is said about an audit.

    Attributes:
        suspects: every region, those that raise most suspicion first.
        trust: of each method.
        overlap: share of what two methods mark that both mark.
        control_overlap: the same of a method and a control.
        right: photographs with the right answer, of those with a label.
        labelled: photographs with a label.
        surest: numbers of the photographs with the most confident answers.
        least_sure: numbers of those with the least confident.
        disputed: numbers of those on whose maps methods agree least.
    """

    suspects: Sequence[Suspect]
    trust: Sequence[Trust]
    overlap: Estimate
    control_overlap: Estimate
    right: int
    labelled: int
    surest: Sequence[int]
    least_sure: Sequence[int]
    disputed: Sequence[int]

    @property
    def named(self) -> list[Suspect]:
        """The suspects that are named: not a corner of a named mark, nor the border beside one."""
        suspects = [suspect for suspect in self.suspects if suspect.level]
        marked = {suspect.place for suspect in suspects if suspect.is_mark}
        corners = any(suspect.looks and suspect.place.endswith("corner") for suspect in suspects)
        return [
            suspect
            for suspect in suspects
            if suspect.is_mark
            or not (suspect.place in marked or (suspect.name == BORDER and corners))
        ]


def findings_of(audit: Audit, shown: int = 4) -> Findings:
    """Return what an audit found.

    Args:
        audit: what was measured.
        shown: photographs of each kind.
    """
    facts = audit.facts
    order = _distinct(audit, sorted(range(len(facts)), key=lambda n: -facts[n]["confidence"]))
    surest, least_sure = order[:shown], order[max(shown, len(order) - shown) :][::-1]
    compared = [number for number, known in enumerate(facts) if known["overlap"] is not None]
    disputed = _distinct(audit, sorted(compared, key=lambda n: facts[n]["overlap"]))
    suspects = sorted(_suspects(audit), key=lambda s: _ORDER.index(s.level))
    labelled = [known for known in facts if known["label"] is not None]
    return Findings(
        suspects,
        _trust(facts),
        Estimate.of(k["overlap"] for k in facts if k["overlap"] is not None),
        Estimate.of(k["control_overlap"] for k in facts if k["control_overlap"] is not None),
        sum(known["label"] == known["predicted"] for known in labelled),
        len(labelled),
        surest,
        least_sure,
        disputed[:shown],
    )


def _distinct(audit: Audit, numbers: Sequence[int]) -> list[int]:
    """Return numbers of photographs without those of further copies."""
    by_index = {audit.indices[number]: number for number in numbers}
    return [by_index[index] for index in audit.photographs.distinct(by_index)]


_ORDER = ("problem", "caution", "info", "")


def _suspects(audit: Audit) -> list[Suspect]:
    """Return all regions, tested at a level that holds for all of them together."""
    marks = audit.photographs.marks
    places = {name: f"the {name}" for name in (*CORNERS, BORDER, TEXT, BACKGROUND)}
    names = [name for name in places if any(name in known["shares"] for known in audit.facts)]
    level = 1 - (1 - LEVEL) / max(1, len(names) + len(marks))
    suspects = [_suspect(audit, name, places[name], level) for name in names]
    return suspects + [
        _suspect(audit, mark.name, mark.place, level, set(mark.boxes)) for mark in marks
    ]


def _suspect(
    audit: Audit, name: str, place: str, level: float, members: set[int] | None = None
) -> Suspect:
    """Return what was measured of a region; `members` are the photographs with a mark."""
    own = [known for known in audit.facts if name in known["shares"]]
    shares = [known["shares"][name] for known in own]
    references = [key for key in ("area", "edges", "elsewhere") if all(key in s for s in shares)]
    above = [Estimate.of((s["map"] - s[key] for s in shares), level) for key in references]
    covered = [known["covered"][name] for known in own if name in known["covered"]]
    fall = Estimate.of((c["fall"] - c["elsewhere"] for c in covered), level) if covered else None
    enough = len(own) >= FEWEST
    return Suspect(
        name,
        place,
        members is not None,
        len(own) if members is None else len(members & set(audit.indices)),
        Estimate.of(s["map"] for s in shares),
        {key: float(numpy.mean([s[key] for s in shares])) for key in references} if shares else {},
        enough and all(difference.low > 0 for difference in above),
        fall,
        sum(c["changed"] for c in covered),
        enough and fall is not None and fall.low > 0 and fall.mean >= _LARGE_FALL,
        None if members is None else _association(audit, members),
        bool(own),
    )


def _association(audit: Audit, members: set[int]) -> Association | None:
    """Return the answer that goes with a mark, by Fisher's exact test for each answer."""
    answers = {True: Counter[int](), False: Counter[int]()}
    for index, known in zip(audit.indices, audit.facts, strict=True):
        answers[index in members][known["predicted"]] += 1
    marked, others = answers[True].total(), answers[False].total()
    best = None
    for answer, count in answers[True].items():
        table = [[count, marked - count], [answers[False][answer], others - answers[False][answer]]]
        p = float(stats.fisher_exact(table, alternative="greater").pvalue) * len(answers[True])
        if others and p < _SURE and (best is None or p < best[0]):
            best = p, answer, count
    if best is None:
        return None
    label = audit.photographs.classifier.label(best[1])
    return Association(label, best[2], marked, answers[False][best[1]], others)


def _trust(facts: Sequence[Facts]) -> list[Trust]:
    tested = [known["trust"] for known in facts if known["trust"]]
    names = [name for name in facts[0]["verdicts"] if name not in CONTROLS]
    trusts = []
    for name in names:
        gains = {
            control: Estimate.of(
                values[name] - values[control]
                for values in tested
                if values[name] is not None and values[control] is not None
            )
            for control in CONTROLS
        }
        verdicts = [known["verdicts"][name] for known in facts]
        checked = [verdict for verdict in verdicts if not verdict.startswith("Not checked")]
        usable = sum(verdict.startswith("Usable") for verdict in checked)
        trusts.append(Trust(name, gains, usable, len(checked)))
    return trusts

"""What a race recommends: verdicts, a table, and the commands to run next."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy

from ...errors import UnknownNameError
from .purposes import RACED, STABILITY
from .race import Race
from .verdicts import Verdict, verdicts_of
from .words import cells, sentence, title

SCHEMA = 1


@dataclass(frozen=True)
class Recommendation:
    """Which method to use on a model, for which purpose, and how sure that is.

    Attributes:
        model: by name.
        data: where the photographs are.
        verdicts: by purpose: `region`, `ranking`, `stability`, `cost`; see `Verdict`.
        table: one mapping per method, the controls last: `method`, `seconds` per map, the mean of
            each purpose with its standing (`best`, `level`, `worse`, or empty where it was not
            tested), and the number of `photographs` behind the means.
        left_out: why methods do not race, by name.
        slow: seconds per map of methods that are too slow for the minutes, by name.
        broken: why photographs could not be read or explained, by name.
        photographs: how many there are.
        unused: how many of them the race has not reached.
        known: rows that were known, and not measured again.
        minutes: the budget.
        seconds: that were spent, loading included.
        seed: of everything random.
    """

    model: str
    data: str
    verdicts: Mapping[str, Verdict]
    table: Sequence[Mapping[str, Any]]
    left_out: Mapping[str, str]
    slow: Mapping[str, float]
    broken: Mapping[str, str]
    photographs: int
    unused: int
    known: int
    minutes: float
    seconds: float
    seed: int

    def best(self, purpose: str) -> str | None:
        """Return the method for a purpose, with its settings as `unilens explain --method` has it.

        Args:
            purpose: `region`, `ranking`, `stability` or `cost`.

        Returns:
            None where no method is to be trusted, or it is not decided; `verdicts` says which.

        Raises:
            UnknownNameError: there is no such purpose.
        """
        if purpose not in self.verdicts:
            raise UnknownNameError("purpose", purpose, list(self.verdicts))
        return self.verdicts[purpose].method

    def __repr__(self) -> str:
        """Return one line."""
        found = ", ".join(f"{name}: {v.method or v.status}" for name, v in self.verdicts.items())
        return f"Recommendation for {self.model} ({found}; {self.photographs} photographs)"

    def __str__(self) -> str:
        """Return the sentences and the table."""
        verdicts = self.verdicts.values()
        lines = [f"{title(v)}. {sentence(v, self.unused)}" for v in verdicts]
        return "\n".join([*lines, *("  ".join(cells(dict(row))) for row in self.table)])

    def record(self) -> dict[str, Any]:
        """Return all of it as plain data."""
        sentences = {name: sentence(v, self.unused) for name, v in self.verdicts.items()}
        return {
            "schema": SCHEMA,
            **{name: getattr(self, name) for name in ("model", "data", "minutes", "seconds")},
            "seed": self.seed,
            "photographs": self.photographs,
            "unused": self.unused,
            "rows_known": self.known,
            "verdicts": {
                name: {**asdict(v), "title": title(v), "sentence": sentences[name]}
                for name, v in self.verdicts.items()
            },
            "table": [dict(row) for row in self.table],
            "left_out": dict(self.left_out),
            "slow": dict(self.slow),
            "broken": dict(self.broken),
        }


def recommendation_of(
    race: Race, command: Callable[[Verdict, int], str], **facts: Any
) -> Recommendation:
    """Return what a race recommends.

    Args:
        race: that was run.
        command: from a verdict and the number of unused photographs to what to run next.
        **facts: the attributes that the race does not know.
    """
    verdicts = {
        name: replace(verdict, command=command(verdict, race.unused))
        for name, verdict in verdicts_of(race, facts["seed"]).items()
    }
    return Recommendation(
        verdicts=verdicts,
        table=_table(race, verdicts),
        left_out=race.left_out,
        slow=race.slow,
        broken=race.broken,
        photographs=len(race.items),
        unused=race.unused,
        **facts,
    )


def _table(race: Race, verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """Return a row per method, those recommended first, then by their means."""
    names = [n for n in race.methods if n not in race.left_out and n not in race.slow]
    rows = [_row(race, verdicts, name) for name in names]
    first = list(dict.fromkeys(v.method for v in verdicts.values() if v.method))

    def order(row: Mapping[str, Any]) -> tuple[float, ...]:
        place = first.index(row["method"]) if row["method"] in first else len(first)
        final = any(row["method"] in methods for methods in race.finalists.values())
        return place, not final, -(row["region"] if row["region"] is not None else -numpy.inf)

    return sorted(rows, key=order) + [_row(race, verdicts, name) for name in race.controls]


def _row(race: Race, verdicts: Mapping[str, Verdict], name: str) -> dict[str, Any]:
    final = {p.name: name in [*race.finalists.get(p.name, ()), *race.controls] for p in RACED}
    row: dict[str, Any] = {"method": name, "seconds": race.measured.seconds(name)}
    counts = [0]
    for purpose in (*RACED, STABILITY):
        images: Sequence[str] = race.deciding if final.get(purpose.name) else race.screened
        images = race.stable if purpose is STABILITY else images
        values = race.measured.values(images, [name], purpose)[:, 0]
        values = values[numpy.isfinite(values)]
        row[purpose.name] = float(values.mean()) if len(values) else None
        verdict = verdicts[purpose.name]
        standing = "best" * (verdict.method == name) or "level" * (name in verdict.level)
        row[f"{purpose.name}_standing"] = standing or "worse" * (name in verdict.worse)
        counts.append(0 if purpose is STABILITY else len(values))
    return {**row, "photographs": max(counts)}

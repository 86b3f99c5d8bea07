"""Does `unilens recommend` name a method of the best group of the full comparison?

    python benchmarks/recommend.py race RUN --data PHOTOS --model efficientnet_lite0
    python benchmarks/recommend.py replay RUN

RUN is a run of all methods, such as benchmarks/results/comparison. The best group of a purpose is
the method with the best mean over all photographs of RUN, and those that a paired test, adjusted
for all pairs, does not call worse. RUN's own metrics count: insertion minus deletion, and
MuFidelity; in whole cells and with the blurred fill where RUN has them, else the first that it has.

`race` runs the command with RUN's methods ten times for the stated minutes, each time on other
photographs, and counts how often the named method lies in the best group. `replay` does that for
every model of RUN without running one: maps and metrics are rows of RUN, and take the seconds that
they took there, divided by --faster.
"""

from __future__ import annotations

import argparse
import functools
import random
import shutil
import sys
import tempfile
import time as clock
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy

from unilens.benchmark.data import Item
from unilens.benchmark.recommend import measured as measured_rows
from unilens.benchmark.recommend import race as racing
from unilens.benchmark.recommend import recommend
from unilens.benchmark.recommend.measured import Measured
from unilens.benchmark.recommend.purposes import CONTROLS, RACED, candidates
from unilens.benchmark.recommend.race import Race
from unilens.benchmark.recommend.verdicts import Verdict, pairs_of, verdicts_of
from unilens.benchmark.store import Store
from unilens.methods import methods
from unilens.specs import read_specs

REPEATS, PHOTOGRAPHS = 10, 40
"""Repeats, and photographs of each, drawn without replacement."""
FULL_STEP = {"gradient": "normalised", "line_search": False, "projection": "sphere"}
"""Settings of the kept rows of `uni_blur`, which are those of its search by one full step."""
KINDS = {
    RACED[0].name: (("insertion_auc", 1), ("deletion_auc", -1)),
    RACED[1].name: (("mu_fidelity", 1),),
}
_OTHER = ("reduction", "correlation")
"""Settings of metrics that ask something else."""


def main() -> None:
    """Print, for each model, purpose and repeat, the named method and whether it is of the best."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=("race", "replay"))
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, help="of race: a folder of photographs")
    parser.add_argument("--model", action="append", help="some of RUN's; by default all")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--photographs", type=int, default=PHOTOGRAPHS)
    parser.add_argument("--faster", type=float, default=4.5, help="of replay: than RUN's machine")
    given = parser.parse_args()
    if given.mode == "race" and given.data is None:
        sys.exit("expected --data FOLDER with race")
    store = Store(given.run)
    for model in given.model or store.plan.models:
        full = Full(store, model)
        print(f"\n{model}, {len(full.images)} photographs in RUN")
        for purpose in KINDS:
            print(f"  best group, {purpose}: {', '.join(full.best_group(purpose))}")
        hits: dict[str, list[bool]] = defaultdict(list)
        for repeat in range(given.repeats):
            if given.mode == "race":
                verdicts, seconds = raced(given, full, repeat)
            else:
                verdicts, seconds = replayed(given, full, repeat)
            show(full, verdicts, seconds, repeat, hits)
        for purpose, own in hits.items():
            print(f"  {purpose}: in the best group in {sum(own)} of {len(own)}")


def show(
    full: Full,
    verdicts: Mapping[str, Verdict],
    seconds: float,
    repeat: int,
    hits: dict[str, list[bool]],
) -> None:
    """Print the methods that a repeat named, and count those of the best group."""
    words = []
    for name, verdict in verdicts.items():
        inside = None
        if name in KINDS:
            inside = full.is_best(verdict.method, name)
        elif verdict.serves:
            inside = all(full.is_best(verdict.method, purpose) for purpose in verdict.serves)
        if name in KINDS or name == "cost":
            hits[name].append(bool(inside))
        mark = {True: "", False: " (not in the best group)", None: ""}[inside]
        words.append(f"{name} {verdict.method or verdict.status}{mark}, n {verdict.n}")
    print(f"  repeat {repeat + 1}, {seconds:.0f} s: {'; '.join(words)}", flush=True)


class Full:
    """The full comparison of one model.

    Args:
        store: of the run.
        model: by name.
    """

    def __init__(self, store: Store, model: str) -> None:
        self.model = model
        self._metrics = {name: tuple(_chosen(store, kinds)) for name, kinds in KINDS.items()}
        self.specs = read_specs(methods, list(store.plan.methods))
        names = {name for metrics in self._metrics.values() for name, _ in metrics}
        self.rows = {
            (row["image"], row["method"], row["metric"]): row
            for row in store.table().to_pylist()
            if row["model"] == model and row["metric"] in names and not row["corruption"]
        }
        self.images = sorted({image for image, _, _ in self.rows})

    @property
    def kept(self) -> dict[str, str]:
        """The metrics of this run, by those of the race that they stand for."""
        return {
            own: kept
            for purpose in RACED
            for own, (kept, _) in zip(purpose.metrics, self._metrics[purpose.name], strict=True)
        }

    def values(self, purpose: str) -> numpy.ndarray[Any, Any]:
        """Return the values `(images, methods)`, of which more is better."""
        values = numpy.zeros((len(self.images), len(self.specs)))
        for metric, sign in self._metrics[purpose]:
            for row, image in enumerate(self.images):
                for column, method in enumerate(self.specs):
                    known = self.rows.get((image, method, metric), {}).get("value")
                    values[row, column] += sign * (numpy.nan if known is None else known)
        return values

    @functools.cache  # noqa: B019 - one for each model
    def best_group(self, purpose: str) -> list[str]:
        """Return the method with the best mean, and those that are not significantly worse."""
        values = self.values(purpose)
        known = [
            column for column in range(values.shape[1]) if numpy.isfinite(values[:, column]).any()
        ]
        names = [list(self.specs)[column] for column in known]
        means = numpy.nanmean(values[:, known], axis=0)
        leader = names[int(means.argmax())]
        pairs = pairs_of(names, values[:, known], purpose, 0)
        return [leader] + [
            name
            for name in names
            if name != leader
            and not (
                (pair := pairs[frozenset((name, leader))].starting_with(leader)).significant
                and (pair.effect or 0) > 0
            )
        ]

    def name_of(self, method: str | None) -> str | None:
        """Return what this run calls a method of the race; None where it has no rows of it."""
        if method is None:
            return None
        (spec,) = read_specs(methods, [method]).values()
        ways = [dict(spec.settings)]
        if spec.name == "uni_blur":
            ways.append(FULL_STEP | spec.settings)
        for settings in ways:
            for name, known in self.specs.items():
                if (known.name, dict(known.settings)) == (spec.name, settings) and any(
                    (image, name, metric) in self.rows
                    for image in self.images[:1]
                    for metric in self.kept.values()
                ):
                    return name
        return None

    def is_best(self, method: str | None, purpose: str) -> bool:
        """Return whether a method of the race lies in the best group."""
        return self.name_of(method) in self.best_group(purpose)


def _chosen(store: Store, kinds: Sequence[tuple[str, int]]) -> Iterator[tuple[str, int]]:
    """Yield a run's metric of each kind, with a blurred fill if it has one."""
    for kind, sign in kinds:
        own = {
            name: spec
            for name, spec in store.plan.metric_specs.items()
            if spec.name == kind and not set(_OTHER) & set(spec.settings)
        }
        if not own:
            sys.exit(f"expected a run with {kind}, got {', '.join(store.plan.metrics)}")
        blurred = [name for name, spec in own.items() if spec.settings.get("imputer") == "blur"]
        cells = [name for name in blurred if "cells" in own[name].settings]
        yield (cells or blurred or list(own))[0], sign


def raced(
    given: argparse.Namespace, full: Full, repeat: int
) -> tuple[Mapping[str, Verdict], float]:
    """Race RUN's methods on photographs of a folder, and return the verdicts and the seconds."""
    own = [name for name, spec in full.specs.items() if spec.name not in CONTROLS]
    files = sorted(path for path in given.data.iterdir() if path.suffix.lower() in _SUFFIXES)
    chosen = random.Random(repeat).sample(files, min(given.photographs, len(files)))
    with tempfile.TemporaryDirectory() as folder:
        for file in chosen:
            shutil.copy(file, folder)
        found = recommend(full.model, folder, minutes=given.minutes, methods=own, seed=repeat)
    return found.verdicts, found.seconds


_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass
class _Clock:
    """A clock that the rows of a run move on."""

    now: float = 0.0

    def monotonic(self) -> float:
        """Return the seconds since the race began."""
        return self.now


@dataclass
class _Kept:
    """A workbench whose maps and metrics are rows of a run."""

    full: Full
    clock: _Clock
    faster: float
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def rows(self, unit: Any) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of a photograph, and let the time pass that they took."""
        for method, missing in unit.missing.items():
            found, seconds = [], 0.0
            for metric in missing:
                key = (unit.item.name, self.full.name_of(method), self.full.kept.get(metric))
                row = self.full.rows.get(key, {"status": "undefined", "reason": "not in the run"})
                seconds += row.get("seconds") or 0.0
                found.append(row | {"image": unit.item.name, "method": method, "metric": metric})
            seconds += found[0].get("map_seconds") or 0.0
            self.clock.now += seconds / self.faster
            yield found


class _Replay(Race):
    """A race over the rows of a run; stability has none."""

    def run(self) -> None:
        """Race until the deadline, or until all photographs are used."""
        race_end = self.deadline * (1 - racing._STABLE)
        self.finalists = {purpose.name: list(self.methods) for purpose in RACED}
        self._choose(race_end)
        self.deciding = self._advance(race_end, len(self.items))


def replayed(
    given: argparse.Namespace, full: Full, repeat: int
) -> tuple[Mapping[str, Verdict], float]:
    """Race over the rows of the full comparison, and return the verdicts and the seconds."""
    chosen = random.Random(repeat).sample(full.images, min(given.photographs, len(full.images)))
    time = _Clock()
    modules: Any = (racing, measured_rows)
    for module in modules:
        module.time = time
    origin: Any = SimpleNamespace()
    race = _Replay(
        _Kept(full, time, given.faster),  # type: ignore[arg-type]
        full.model,
        [Item(name, None, origin) for name in chosen],
        [name for name in candidates(224) if full.name_of(name)],
        60 * given.minutes - 15,  # loading and verdicts
        Measured(),
        began=0.0,
    )
    race.run()
    for module in modules:
        module.time = clock
    return verdicts_of(race, repeat), time.now


if __name__ == "__main__":
    main()

"""The race: all methods on a few photographs, the better half on more, the best on most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field

from ...errors import UnilensError, require
from ..data import Item
from ..rows import FAILED, INAPPLICABLE
from ..work import LoadedModel, Unit, Workbench, content_of
from .entry import example, unfit, usual_seconds
from .measured import EarlierRun, Measured, means
from .purposes import CONTROLS, RACED, STABILITY, Purpose

FINALISTS = 4
"""Methods of a purpose that reach the final, at least."""
_SCREENED = 4
"""One photograph in so many serves to choose the finalists."""
_FIRST = 3
"""Photographs of the first round, at least; later rounds have at least one."""
_CHOOSING, _STABLE = 0.45, 0.15
"""Shares of the time: of choosing the finalists within the race, and of stability at its end."""
_FIRST_SHARE = 0.35
"""Share of the race that the first round may take, by the methods' declared passes."""
_SAFETY = 1.3
"""A method begins where this many times its usual seconds are left."""

ProgressCallback = Callable[[float, str], None]
"""Called with the share of the time that is spent, and what is being done."""


@dataclass
class Race:
    """One model's methods on photographs.

    Attributes:
        workbench: makes and measures maps.
        model: by its name in the plan.
        items: the photographs.
        methods: that race, without the controls.
        deadline: of `time.monotonic()`, when all measuring ends.
        measured: the rows.
        earlier: makes runs whose rows are taken, once the methods are built.
        on_progress: see `ProgressCallback`.
        left_out: why methods do not race, by name.
        slow: seconds that a map of methods would take which are too slow for the budget.
        broken: why photographs cannot be read or explained, by name.
        finalists: methods by purpose.
        deciding: names of the photographs of the final, which choose no finalists.
        screened: names of the photographs that chose the finalists.
        contenders: methods whose stability was measured.
        stable: names of the photographs on which it was.
    """

    workbench: Workbench
    model: str
    items: Sequence[Item]
    methods: Sequence[str]
    deadline: float
    measured: Measured
    earlier: Sequence[EarlierRun] = ()
    on_progress: ProgressCallback = lambda share, current: None
    began: float = field(default_factory=time.monotonic)
    left_out: dict[str, str] = field(default_factory=dict)
    slow: dict[str, float] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    finalists: dict[str, list[str]] = field(default_factory=dict)
    deciding: list[str] = field(default_factory=list)
    screened: list[str] = field(default_factory=list)
    contenders: list[str] = field(default_factory=list)
    stable: list[str] = field(default_factory=list)
    _usual: dict[str, float] = field(default_factory=dict)
    _next: int = 0

    @property
    def controls(self) -> list[str]:
        """The controls that fit the model."""
        return [name for name in CONTROLS if name not in self.left_out]

    def run(self) -> None:
        """Race until the deadline, or until all photographs are used."""
        loaded = self.workbench.load(self.model)
        for item in self.items[:_FIRST]:
            with suppress(_UnreadableError):  # noted when its turn comes
                self._take_known(item)
        self._enter(loaded)
        end = self._race_end()
        try:
            self._choose(end)
            first = self._next
            self.deciding = self._advance(end, len(self.items))
            if contenders := self._better_than_controls():
                self._measure_stability(first, contenders)
            else:
                self.deciding += self._advance(self.deadline, len(self.items))
        finally:
            self.measured.flush()
        reason = next(iter(self.broken.values()), "")
        require(
            len(self.broken) < max(1, self._next),
            f"expected photographs that the model can explain, got none: {reason}",
        )

    @property
    def unused(self) -> int:
        """The number of photographs that the race has not reached."""
        return len(self.items) - self._next

    def _enter(self, loaded: LoadedModel) -> None:
        """Let in the methods that fit the model, and of these what the time allows."""
        inputs = example(loaded, self.items)
        self.left_out = unfit(loaded, [*self.methods, *CONTROLS], inputs)
        fitting = [name for name in self.methods if name not in self.left_out]
        reason = next(iter(self.left_out.values()), "")
        require(bool(fitting), f"expected methods that fit the model, got none: {reason}")
        names = [*fitting, *self.controls]
        self._usual, maps = usual_seconds(loaded, names, self.workbench.metrics, inputs)
        first = min(_FIRST, len(self.items))
        share = _FIRST_SHARE if len(self.items) >= _SCREENED * _FIRST else 1.0
        left = (self._race_end() - time.monotonic()) * share / first
        left -= sum(self._usual[name] for name in self.controls)
        for name in sorted(fitting, key=self._usual.__getitem__):
            left -= 0.0 if self._known(name, first) else self._usual[name]
            if left < 0:
                self.slow[name] = maps[name]
        entered = [name for name in fitting if name not in self.slow]
        self.finalists = {purpose.name: list(entered) for purpose in RACED}

    def _race_end(self) -> float:
        """Return when stability begins, if the race began now."""
        now = time.monotonic()
        return now + (self.deadline - now) * (1 - _STABLE)

    def _known(self, method: str, first: int) -> bool:
        """Return whether the rows of the first photographs are there."""
        metrics = [metric for purpose in RACED for metric in purpose.metrics]
        return all(
            self.measured.get(item.key, method, metric) is not None
            for item in self.items[:first]
            for metric in metrics
        )

    def _choose(self, race_end: float) -> None:
        """Halve the methods of each purpose by their means, on a part of the photographs."""
        budget = len(self.items) // _SCREENED
        sizes = _sizes(len(self.finalists[RACED[0].name]))
        rounds = min(len(sizes), max(0, budget - _FIRST + 1))
        now = time.monotonic()
        end = now + (race_end - now) * _CHOOSING
        for number in range(rounds):
            now = time.monotonic()
            own_end = now + (end - now) / (rounds - number)
            left = budget - len(self.screened) - (rounds - number - 1)
            most = max(_FIRST if not number else 1, math.ceil(left / (rounds - number)))
            self.screened += self._advance(
                own_end, min(most, left), at_least=1 if number else _FIRST
            )
            if not self.screened:
                return
            for purpose in RACED:
                self.finalists[purpose.name] = self._best(purpose, sizes[number])

    def _best(self, purpose: Purpose, size: int) -> list[str]:
        """Return the methods of a purpose with the best means over the photographs so far."""
        methods = self._running(purpose)
        known = means(self.measured.values(self.screened, methods, purpose))
        order = sorted(range(len(methods)), key=lambda column: -known[column])[:size]
        return [methods[column] for column in sorted(order)]

    def _running(self, purpose: Purpose) -> list[str]:
        return [name for name in self.finalists[purpose.name] if name not in self.left_out]

    def _advance(self, end: float, most: int, at_least: int = 0) -> list[str]:
        """Measure the next photographs until a time, and return their names."""
        done: list[str] = []
        while len(done) < most and self._next < len(self.items):
            planned = self._planned()
            end_now = self.deadline if len(done) < at_least else end
            if not self._fits(self._next, planned, end_now):
                break
            item = self.items[self._next]
            self._next += 1
            if not self._measure(item, planned):
                break
            if item.key not in self.broken:
                done.append(item.key)
        return done

    def _planned(self) -> dict[str, list[str]]:
        """Return the metrics of each method that still races; controls first, by all."""
        planned = {
            name: [m for purpose in RACED for m in purpose.metrics] for name in self.controls
        }
        for purpose in RACED:
            for name in self._running(purpose):
                planned.setdefault(name, []).extend(purpose.metrics)
        return planned

    def _missing(self, item: Item, planned: Mapping[str, Iterable[str]]) -> dict[str, list[str]]:
        missing = {
            name: [m for m in metrics if self.measured.get(item.key, name, m) is None]
            for name, metrics in planned.items()
        }
        return {name: metrics for name, metrics in missing.items() if metrics}

    def _fits(self, number: int, planned: Mapping[str, Iterable[str]], end: float) -> bool:
        """Return whether a photograph can be measured until a time, by what it usually takes."""
        missing = self._missing(self.items[number], planned)
        needed = sum(self._usual.get(name, 0.0) for name in missing)
        return not missing or time.monotonic() + needed <= end

    def _measure(self, item: Item, planned: Mapping[str, Sequence[str]]) -> bool:
        """Measure what is missing of a photograph; return False where time ran out."""
        try:
            self._take_known(item)
        except _UnreadableError as error:
            self.broken[item.key] = str(error)
            return True
        missing = self._missing(item, planned)
        whole = True
        if missing:
            whole = self._measure_missing(item, missing)
        self._judge(item, planned)
        return whole

    def _measure_missing(self, item: Item, missing: Mapping[str, Sequence[str]]) -> bool:
        names = list(missing)
        last = time.monotonic()
        unit = Unit(item, None, self.model, missing, pictured=False)
        with closing(self.workbench.rows(unit)) as batches:
            for rows in batches:
                self.measured.add(rows)
                now = time.monotonic()
                own = {row["method"] for row in rows}
                for name in own:
                    self._usual[name] = max(
                        (now - last) / len(own), 0.5 * self._usual.get(name, 0.0)
                    )
                last = now
                names = [name for name in names if name not in own]
                spent = (now - self.began) / max(1e-9, self.deadline - self.began)
                self.on_progress(min(1.0, spent), f"{item.key}: {', '.join(own)}")
                if names and now + _SAFETY * self._usual.get(names[0], 0.0) > self.deadline:
                    return False
        return True

    def _take_known(self, item: Item) -> None:
        """Take the rows of earlier runs, if they are of these very pixels."""
        rows = [row for run in self.earlier for row in run.rows(item.key)]
        known = self.measured.content(item.key)
        if not rows and known is None:
            return
        try:
            classifier = self.workbench.load(self.model).classifier
            content = content_of(classifier.preprocess(item.load()))
        except UnilensError as error:
            raise _UnreadableError(str(error)) from error
        require(
            known in (None, content),
            f"expected {item.key} as it was when this run began, got other pixels; choose another "
            "folder with --out",
        )
        self.measured.take(
            row
            for row in rows
            if row["content"] == content
            and self.measured.get(item.key, row["method"], row["metric"]) is None
        )

    def _judge(self, item: Item, planned: Mapping[str, Sequence[str]]) -> None:
        """Note a photograph that cannot be explained, and methods that raise on the model."""
        for name, metrics in planned.items():
            rows = [self.measured.get(item.key, name, metric) for metric in metrics]
            reasons = [
                str(row["reason"])
                for row in rows
                if row and row["status"] in (FAILED, INAPPLICABLE)
            ]
            if reasons and name == CONTROLS[0]:
                self.broken[item.key] = reasons[0]
                return
            if reasons:
                self.left_out[name] = reasons[0]

    def _better_than_controls(self) -> list[str]:
        """Return the finalists whose means are above those of the controls, for any purpose."""
        contenders: dict[str, None] = {}
        for purpose in RACED if self.deciding else ():
            methods = self._running(purpose)
            names = [*methods, *self.controls]
            known = means(self.measured.values(self.deciding, names, purpose))
            bar = known[len(methods) :].max(initial=-math.inf)
            contenders.update(
                (name, None) for name, mean in zip(methods, known, strict=False) if mean > bar
            )
        return list(contenders)

    def _measure_stability(self, first: int, methods: list[str]) -> None:
        """Measure the stability of methods on the photographs of the final, from the first one."""
        planned = {name: list(STABILITY.metrics) for name in (*self.controls, *methods)}
        self._usual = {name: 2 * self._usual.get(name, 0.0) for name in planned}
        self.contenders = methods
        for number in range(first, self._next):
            item = self.items[number]
            if item.key in self.broken:
                continue
            if not self._fits(number, planned, self.deadline):
                break
            missing = self._missing(item, planned)
            if not missing or self._measure_missing(item, missing):
                self.stable.append(item.key)


class _UnreadableError(Exception):
    """A photograph that cannot be read."""


def _sizes(count: int) -> list[int]:
    """Return how many methods are left after each round."""
    sizes: list[int] = []
    while count > FINALISTS:
        count = max(FINALISTS, math.ceil(count / 2))
        sizes.append(count)
    return sizes

"""How costs grow: a study's measurements along each thing that was varied, and their laws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import UnilensError, require
from ...methods import methods
from ..plan import Plan
from ..rows import OK, Row
from .design import BOTH, PREPARED_BOTH, PREPARED_FORWARD, Cost, counted_by
from .fits import Fit, line, power_law
from .study import place_of

SECONDS, CPU_SECONDS, MEMORY = "seconds", "cpu_seconds", "memory_bytes"
VARIED = ("resolution", "n_steps", "batch")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one cost of a method grows with one thing.

    Attributes:
        model: by name.
        method: by name in the plan, or a bare pass.
        what: `seconds`, `cpu_seconds` (of all cores together) or `memory_bytes`.
        against: `resolution` (in pixels of the whole image), `n_steps` or `batch`.
        fit: the law: a power of the pixels, a line in the others; None where it is refused.
        refused: why.
    """

    model: str
    method: str
    what: str
    against: str
    fit: Fit | None
    refused: str = ""


class Study:
    """The measurements of a cost study.

    Args:
        plan: of the run.
        rows: as `Store.costs` returns them.
        clock: what time is: `seconds`, or `cpu_seconds`, those of a core, which other work on the
            machine changes less; None for the latter where the models ran on a CPU.
    """

    def __init__(self, plan: Plan, rows: Sequence[Row], clock: str | None = None) -> None:
        require(plan.cost is not None, "expected the run of a plan with [cost], got one without")
        self.plan, self.rows = plan, list(rows)
        self.clock = clock or (CPU_SECONDS if plan.device.startswith("cpu") else SECONDS)
        self.cost = plan.cost or Cost()
        self._by_place = {place_of(row): row for row in rows if row["status"] == OK}

    @property
    def measured(self) -> list[tuple[str, str]]:
        """The models and methods, bare passes included, that have a measurement."""
        return list(dict.fromkeys((place.model, place.method) for place in self._by_place))

    def counted_by(self, method: str) -> str | None:
        """Return the setting that is a method's number of steps; None for none."""
        spec = self.plan.method_specs.get(method)
        return None if spec is None else counted_by(methods[spec.name])

    def usual_steps(self, method: str) -> int | None:
        """Return the number of steps that the plan asks of a method, or its default."""
        count = self.counted_by(method)
        if count is None:
            return None
        spec = self.plan.method_specs[method]
        return int(spec.settings.get(count, methods[spec.name].settings[count]))

    def at(self, model: str, method: str, **changed: Any) -> Row | None:
        """Return the measurement at the centre, or beside it; None where there is none."""
        centre = self.cost.centre.model_dump() | changed
        if self.counted_by(method) is None:
            centre["n_steps"] = None
        return self._by_place.get((model, method, *(centre[name] for name in VARIED)))  # type: ignore[call-overload]

    def along(self, model: str, method: str, varied: str) -> list[Row]:
        """Return the measurements along one thing, all others as at the centre."""
        if varied == "n_steps" and self.counted_by(method) is None:
            return []
        lists = {
            "resolution": self.cost.resolutions,
            "n_steps": self.cost.n_steps,
            "batch": self.cost.batches,
        }
        wanted = sorted({*lists[varied], getattr(self.cost.centre, varied)})
        found = [self.at(model, method, **{varied: value}) for value in wanted]
        return [row for row in found if row is not None]

    def scalings(self) -> list[Scaling]:
        """Return all laws, in the order of models and methods."""
        return [
            self.scaling(model, method, what, varied)
            for model, method in self.measured
            if model in self.plan.models
            for what in (SECONDS, CPU_SECONDS, MEMORY)
            for varied in VARIED
            if varied != "n_steps" or self.counted_by(method)
        ]

    def scaling(self, model: str, method: str, what: str, varied: str) -> Scaling:
        """Return the law of a cost along one thing: of a call, not of an image, in the batch."""
        rows = [row for row in self.along(model, method, varied) if row[what] is not None]
        x = [row[varied] ** (2 if varied == "resolution" else 1) for row in rows]
        y = [row[what] / (row["batch"] if self._per_image(what, varied) else 1) for row in rows]
        try:
            fit = (power_law if varied == "resolution" else line)(x, y)
        except UnilensError as error:
            return Scaling(model, method, what, varied, None, str(error))
        return Scaling(model, method, what, varied, fit)

    @staticmethod
    def _per_image(what: str, varied: str) -> bool:
        return what != MEMORY and varied != "batch"

    def pass_seconds(self, model: str, yardstick: str = BOTH) -> float | None:
        """Return the time of a single pass per image at the centre; None if not measured."""
        row = self.at(model, yardstick)
        return None if row is None else row[self.clock] / row["batch"]

    def bare_multiple(self, row: Row) -> float | None:
        """Return how many bare passes, forward and backward, take as long as a measurement.

        They are those at the same resolution and batch.
        """
        bare = self._by_place.get(place_of(row)._replace(method=BOTH, n_steps=None))
        if bare is None or row[self.clock] is None:
            return None
        return row[self.clock] / bare[self.clock]

    def seconds_of_map(self, model: str, method: str) -> float | None:
        """Return seconds of one map at the centre, with the number of steps that it is used with.

        Where the model's maps were not measured, those of the first model that was carry over in
        the ratio of the prepared passes: forward only, for a method without backward passes. Bare
        ones would not do: how much preparing a model saves is another for each.
        """
        for measured in dict.fromkeys([model, *self.plan.models]):
            own = self._seconds_with_steps(measured, method)
            yardstick = self._yardstick(measured, method)
            ours, theirs = (self.pass_seconds(one, yardstick) for one in (model, measured))
            if own is not None and measured == model:
                return own
            if own is not None and ours and theirs:
                return own * ours / theirs
        return None

    def _yardstick(self, model: str, method: str) -> str:
        row = self.at(model, method)
        return PREPARED_BOTH if row is None or row["backward"] else PREPARED_FORWARD

    def _seconds_with_steps(self, model: str, method: str) -> float | None:
        row = self.at(model, method)
        if row is None:
            return None
        seconds: float = row[self.clock] / row["batch"]
        fit = self.scaling(model, method, self.clock, "n_steps").fit
        steps = self.usual_steps(method)
        if steps is None or steps == self.cost.centre.n_steps:
            return seconds
        return None if fit is None else fit.at(steps)

"""How costs scale: a study's measurements along each varied factor, and their fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unilens.errors import UnilensError

from .config import BOTH, PREPARED_BOTH, PREPARED_FORWARD, CostConfig
from .fits import Fit, line, power_law
from .store import OK, Row, key_of

SECONDS, CPU_SECONDS, MEMORY = "seconds", "cpu_seconds", "memory_bytes"
VARIED = ("resolution", "n_steps", "batch")


@dataclass(frozen=True, slots=True)
class Scaling:
    """How one cost of a method scales with one factor.

    Attributes:
        model: by name.
        method: by name in the configuration, or a single pass.
        what: `seconds`, `cpu_seconds` (of all cores together) or `memory_bytes`.
        against: `resolution` (in pixels of the whole image), `n_steps` or `batch`.
        fit: a power of the pixels, a line in the others; None where there are too few points.
        refused: why there is no fit.
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
        config: of the study.
        rows: as `CostStore.rows` returns them.
        clock: the measure of time: `seconds`, or `cpu_seconds`, the processor's own, which other
            work on the machine changes less; None for the latter where models ran on a CPU.
    """

    def __init__(self, config: CostConfig, rows: Sequence[Row], clock: str | None = None) -> None:
        self.config, self.rows = config, list(rows)
        self.clock = clock or (CPU_SECONDS if config.device.startswith("cpu") else SECONDS)
        self._by_key = {key_of(row): row for row in rows if row["status"] == OK}

    @property
    def measured(self) -> list[tuple[str, str]]:
        """The models and methods, single passes included, that have a measurement."""
        return list(dict.fromkeys((key.model, key.method) for key in self._by_key))

    def at(self, model: str, method: str, **changed: Any) -> Row | None:
        """Return the measurement at the centre with some factors changed, or None."""
        centre = self.config.centre.model_dump() | changed
        if self.config.step_setting(method) is None:
            centre["n_steps"] = None
        return self._by_key.get((model, method, *(centre[name] for name in VARIED)))  # type: ignore[call-overload]

    def along(self, model: str, method: str, varied: str) -> list[Row]:
        """Return the measurements along one factor, all others as at the centre."""
        if varied == "n_steps" and self.config.step_setting(method) is None:
            return []
        lists = {
            "resolution": self.config.resolutions,
            "n_steps": self.config.n_steps,
            "batch": self.config.batches,
        }
        values = sorted({*lists[varied], getattr(self.config.centre, varied)})
        found = [self.at(model, method, **{varied: value}) for value in values]
        return [row for row in found if row is not None]

    def scalings(self) -> list[Scaling]:
        """Return all fits, in the order of models and methods."""
        return [
            self.scaling(model, method, what, varied)
            for model, method in self.measured
            if model in self.config.models
            for what in (SECONDS, CPU_SECONDS, MEMORY)
            for varied in VARIED
            if varied != "n_steps" or self.config.step_setting(method)
        ]

    def scaling(self, model: str, method: str, what: str, varied: str) -> Scaling:
        """Return the fit of a cost along one factor: per call in the batch, else per image."""
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
        """Return a measurement in bare forward and backward passes of the same shape."""
        bare = self._by_key.get(key_of(row)._replace(method=BOTH, n_steps=None))
        if bare is None or row[self.clock] is None:
            return None
        return row[self.clock] / bare[self.clock]

    def seconds_of_map(self, model: str, method: str) -> float | None:
        """Return the seconds of one map at the centre, with the method's usual number of steps.

        Where the model's maps were not measured, those of the first measured model are scaled by
        the ratio of the prepared passes: forward only, for a method without backward passes. Bare
        passes would not do: what preparing saves differs between models.
        """
        for measured in dict.fromkeys([model, *self.config.models]):
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
        steps = self.config.usual_steps(method)
        if steps is None or steps == self.config.centre.n_steps:
            return seconds
        return None if fit is None else fit.at(steps)

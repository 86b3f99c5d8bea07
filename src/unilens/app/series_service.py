"""What the tab of series shows, computed and cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._engine.evaluator import Evaluator
from .._validation.settings import check_choice
from ..attribution import Attribution
from ..errors import UnilensError, first_line, require
from ..methods import explain
from ..outputs import OutputSpec
from ..scores import forecast
from ..tables.files import load_model
from .applicable import applicable_methods
from .csv_files import CsvFile
from .csv_request import SeriesRequest
from .jobs import Job
from .model_sources import SeriesModel
from .runner import JobRunner

TIME_NAMES = ("time", "date", "datetime", "timestamp", "step", "index")
"""Names of columns that are left out unless the visitor says otherwise."""
_PASSES = 200


@dataclass(frozen=True)
class Series:
    """A visitor's series.

    Attributes:
        values: `(T, F)`.
        names: of the channels.
        times: what stands in the column of times, or the numbers of the steps.
        outputs: what the model returns, `(K,)`, `(H,)` or `(H, F)`.
    """

    values: Tensor
    names: list[str]
    times: list[str]
    outputs: Tensor


class SeriesService:
    """Explains visitors' series.

    Args:
        given: the model.
        runner: runs the work.

    Raises:
        UnilensError: there is no such model, or it is no module in eval mode.
    """

    def __init__(self, given: SeriesModel, runner: JobRunner) -> None:
        check_choice("--channels", given.channels, ("last", "first"))
        self.given, self._runner = given, runner
        model = load_model(given.model, trust_pickle=False)
        require(
            isinstance(model, nn.Module),
            f"expected a torch.nn.Module in {given.model}, got {type(model).__name__}",
        )
        self._evaluator = Evaluator(model, channels=given.channels, on_pass=runner.on_pass)

    def is_forecast(self, series: Series) -> bool:
        """Return whether the model's outputs are steps and series of a forecast."""
        return self.given.forecast or series.outputs.ndim == 2

    def read(self, file: CsvFile, time_column: str | None) -> Series:
        """Return a series, with what the model returns for it.

        Raises:
            UnilensError: a cell is no number, or the model does not take the series.
        """
        frame, times = file.frame, [str(step) for step in range(len(file.frame))]
        if time_column is not None:
            require(
                time_column in frame.columns,
                f"expected a column of times {time_column!r}, but the file has none",
            )
            times = [str(time) for time in frame[time_column]]
            frame = frame.drop(columns=time_column)
        require(frame.shape[1] > 0, "expected a column for each channel, got none beside the times")
        values = torch.tensor(_numbers(frame), dtype=self._evaluator.dtype or torch.float32)
        outputs = self._runner.run(
            ("outputs", file.digest, time_column), Job(), lambda: self._outputs(values)
        )
        return Series(values, list(map(str, frame.columns)), times, outputs)

    def methods(self, series: Series) -> list[str]:
        """Return the names of the methods that fit the model and a series."""
        return self._runner.cached(
            ("methods of series", series.values.shape),
            lambda: applicable_methods(
                self._evaluator, self.inputs(series.values), references=False
            ),
        )

    def explain(
        self, file: CsvFile, request: SeriesRequest, job: Job
    ) -> tuple[Series, Attribution]:
        """Return a series and its map.

        Raises:
            UnilensError: the file or the request does not fit the model.
            Cancelled: the job is cancelled.
        """
        series = self.read(file, request.time_column)
        request.check(self.methods(series))
        settings: dict[str, Any] = {}
        if self.is_forecast(series):
            settings["score"] = forecast(request.step, request.series)

        def compute() -> Attribution:
            job.begin("the map of the series", 0.0, 1.0, _PASSES)
            return explain(
                self._evaluator,
                self.inputs(series.values),
                request.method,
                None if settings else request.target,
                seed=request.seed,
                **settings,
            )

        key = ("series", file.digest, request.model_dump_json())
        return series, self._runner.run(key, job, compute)

    def inputs(self, values: Tensor) -> Tensor:
        """Return a series `(T, F)` as the model takes it, `(1, T, F)` or `(1, F, T)`."""
        return (values.T if self.given.channels == "first" else values)[None].contiguous()

    def by_step(self, attribution: Attribution) -> Tensor:
        """Return a map as the file has it, `(T, F)`."""
        values = attribution.values[0].detach().cpu()
        return values.T if self.given.channels == "first" else values

    def score(self, series: Series, attribution: Attribution) -> tuple[str, float]:
        """Return the unit of what is explained, and its value."""
        if self.is_forecast(series):
            return "forecast", float(attribution.score[0])
        confidence = float(attribution.confidence[0])
        spec = OutputSpec.of(attribution.provenance)
        known = spec.has_probabilities and confidence == confidence
        return ("probability", confidence) if known else ("output", float(attribution.score[0]))

    def _outputs(self, values: Tensor) -> Tensor:
        inputs = self.inputs(values)
        try:
            with torch.no_grad():
                outputs = self._evaluator.model(inputs)
        except Exception as error:  # a user's model can raise anything
            raise UnilensError(
                f"the model does not take a series of {len(values)} steps and {values.shape[1]} "
                f"channels: {type(error).__name__}: {first_line(error)}"
            ) from error
        require(
            isinstance(outputs, Tensor) and outputs.ndim in (2, 3) and len(outputs) == 1,
            "expected a series model that returns a tensor (B, K), (B, H) or (B, H, F), got "
            + (
                f"{tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
            ),
        )
        require(bool(outputs.isfinite().all()), "expected finite outputs of the model, got others")
        return outputs[0].detach().cpu()


def time_column_of(frame: Any) -> str | None:
    """Return the column that is left out as times unless the visitor says otherwise.

    It is the first one of the name of a time, else the first column if it has no numbers.
    """
    names = list(map(str, frame.columns))
    named = next((name for name in names if name.strip().lower() in TIME_NAMES), None)
    return named or (None if frame.dtypes.iloc[0].kind in "iufb" else names[0])


def _numbers(frame: Any) -> list[list[float]]:
    """Return the cells `(T, F)` of a frame; raise where one is missing, or no number."""
    for name, dtype in frame.dtypes.items():
        require(
            dtype.kind in "iufb",
            f"expected numbers in column {str(name)!r}, got others; leave it out, or choose it as "
            "the column of times",
        )
        missing = frame[name].isna().to_numpy().nonzero()[0].tolist()
        require(
            not missing,
            f"expected no missing cells, got one at time step {missing[0] if missing else 0} in "
            f"column {str(name)!r}; fill it in",
        )
    cells: list[list[float]] = frame.to_numpy("float64").tolist()
    return cells

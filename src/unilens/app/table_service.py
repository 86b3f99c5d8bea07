"""What the tab of tables shows, computed and cached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._engine.evaluator import Evaluator
from ..errors import UnilensError, require
from ..methods.defaults import FEWEST_ROWS
from ..tables import TableAttribution, explain
from ..tables.explaining import BY_CELLS
from ..tables.files import load_model, read_rows, read_table, without_column
from ..tables.predictors import classes_of
from ..tables.reading import positions
from .applicable import applicable_methods
from .csv_files import CsvFile
from .csv_request import TableRequest
from .jobs import Job
from .model_sources import TableModel
from .runner import JobRunner

MAX_EXPLAINED = 100
"""Rows that are explained at once."""
MAX_CALLED = 20_000_000
"""Rows that the model may be called with for one request."""
PREVIEWED = 8
_EXAMPLE = 20
_EXACT = 12
_PERMUTATIONS = 40
"""As the settings of Shapley values are."""


class TableService:
    """Explains rows of visitors' tables.

    Args:
        given: the model and its references.
        runner: runs the work.

    Raises:
        UnilensError: there is no such model, or it does not take the references.
    """

    def __init__(self, given: TableModel, runner: JobRunner) -> None:
        self.given, self._runner = given, runner
        self._model = load_model(given.model, given.trust_pickle)
        require(
            callable(self._model) or hasattr(self._model, "predict"),
            f"expected a module, an estimator or a function in {self.model_name}, got "
            f"{type(self._model).__name__}",
        )
        self.is_module = isinstance(self._model, nn.Module)
        self.references: Any = None
        if given.references is not None:
            self.references = without_column(read_table(given.references), given.label_column)
        self._methods: list[str] | None = None if self.is_module else list(BY_CELLS)
        if self.is_module:
            self._evaluator = Evaluator(self._model, on_pass=runner.on_pass)
        if self.references is not None:
            self._explain(self.references.iloc[:2], "random", None, 0)

    @property
    def model_name(self) -> str:
        """The model as it was given, without folders."""
        name = self.given.model
        return name if name.startswith("py:") else Path(name).name

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """The labels of an estimator's classes; None where it has none."""
        return classes_of(getattr(self._model, "__self__", self._model))

    @property
    def example(self) -> Any:
        """The first rows of the references; None where there are none."""
        return None if self.references is None else self.references.iloc[:_EXAMPLE]

    def methods(self, file: CsvFile) -> list[str]:
        """Return the names of the methods that fit the model."""
        if self._methods is None:
            frame = self._columns(file.frame).iloc[:1]
            inputs = torch.as_tensor(frame.to_numpy("float64")).to(self._evaluator.dtype)
            names = applicable_methods(self._evaluator, inputs, references=True)
            self._methods = [*BY_CELLS, *(name for name in names if name not in BY_CELLS)]
        return self._methods

    def preview(self, file: CsvFile) -> TableAttribution:
        """Return the first rows with what the model predicts for them."""
        return self._runner.run(
            ("preview", file.digest),
            Job(),
            lambda: self._explain(self._rows(file, range(PREVIEWED)), "random", None, 0, file),
        )

    def explain(self, file: CsvFile, request: TableRequest, job: Job) -> TableAttribution:
        """Return the contributions of the columns of the rows in a request.

        Raises:
            UnilensError: the file or the request does not fit the model.
            Cancelled: the job is cancelled.
        """
        request.check(self.methods(file))
        rows = self._row_numbers(file, request.rows)
        target = self.target(request)

        def compute() -> TableAttribution:
            frame = self._rows(file, rows)
            job.begin("contributions of the columns", 0.0, 1.0, self._passes(file, frame, request))
            return self._explain(frame, request.method, target, request.seed, file)

        return self._runner.run(("table", file.digest, request.model_dump_json()), job, compute)

    def target(self, request: TableRequest) -> Any:
        """Return the target of a request as `unilens.tables.explain` takes it."""
        if request.target is None or self.classes is None:
            return request.target
        require(
            request.target < len(self.classes),
            f"expected a class between 0 and {len(self.classes) - 1}, got {request.target}",
        )
        return self.classes[request.target]

    def references_for(self, file: CsvFile) -> Any:
        """Return the rows to compare with: those given, or the upload; None if that is short."""
        if self.references is not None:
            return self.references
        return self._columns(file.frame) if len(file.frame) >= FEWEST_ROWS else None

    def _row_numbers(self, file: CsvFile, text: str) -> list[int]:
        count = len(file.frame)
        text = text.strip().lower()
        every = list(range(count)) if text == "all" else None
        rows = every or read_rows(text or None, count, 1, "rows")
        require(
            len(rows) <= MAX_EXPLAINED,
            f"expected at most {MAX_EXPLAINED} rows at once, got {len(rows)}; name fewer",
        )
        return rows

    def _rows(self, file: CsvFile, rows: Any) -> Any:
        return self._columns(file.frame).iloc[[row for row in rows if row < len(file.frame)]]

    def _columns(self, frame: Any) -> Any:
        """Return a frame without the label, and with the columns of the references in order."""
        label = self.given.label_column
        frame = frame.drop(columns=label) if label in frame.columns else frame
        if self.references is None:
            return frame
        names, expected = list(map(str, frame.columns)), list(map(str, self.references.columns))
        order = positions(names, expected, "a table", "the model")
        extra = [name for name in names if name not in set(expected)]
        require(
            not extra,
            f"expected the {len(expected)} columns that the model takes, got others as well: "
            f"{', '.join(map(repr, extra[:8]))}; leave them out",
        )
        return frame.iloc[:, order]

    def _passes(self, file: CsvFile, frame: Any, request: TableRequest) -> int:
        """Return roughly how many rows are masked; raise if the model is called too often."""
        name, columns = request.method or "shapley", frame.shape[1]
        if name not in BY_CELLS or (request.method is None and self.is_module):
            return len(frame) * 1000
        exact, sampled = 2 ** min(columns, _EXACT), _PERMUTATIONS * columns
        points = {"shapley": exact if columns <= _EXACT else sampled, "rise": 2000}
        passes = points.get(name, columns)
        references = self.references_for(file)
        called = passes * min(100, 1 if references is None else len(references))
        require(
            called * len(frame) <= MAX_CALLED,
            f"expected at most {MAX_CALLED // called} rows at once of a table with {columns} "
            f"columns by {name}, got {len(frame)}; name fewer, or choose occlusion",
        )
        return passes * len(frame)

    def _explain(
        self, frame: Any, method: str | None, target: Any, seed: int, file: CsvFile | None = None
    ) -> TableAttribution:
        references = self.references if file is None else self.references_for(file)
        model = self._evaluator if self.is_module else self._model
        try:
            return explain(
                model,
                frame,
                target,
                method,
                references=references,
                seed=seed,
                on_pass=self._runner.on_pass,
            )
        except UnilensError as error:
            # the remedy for a visitor is to edit the file
            raise UnilensError(str(error).partition(", as by frame.")[0]) from error

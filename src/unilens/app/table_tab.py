"""The tab of tables: the columns of rows of a CSV file."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import require
from ..output.text import printable
from ..tables import TableAttribution, bars, beeswarm, waterfall
from .csv_files import CsvFile, csv_bytes
from .csv_render import (
    figure_bytes,
    prediction_text,
    preview_html,
    row_html,
    shortened,
    summary_html,
)
from .csv_request import TableRequest, read_table_form
from .csv_tab import DIRECT, QUEUED, CsvTab, Shown, class_choices, method_choices
from .files import VisitorFiles
from .handlers import small, visitor_id, with_short_errors
from .jobs import Job, Jobs
from .layout import PREDICTED
from .request import validated
from .table_service import MAX_EXPLAINED, PREVIEWED, TableService
from .upload import unchecked


class TableTab(CsvTab):
    """The tab of tables.

    Args:
        service: does the work.
        files: what visitors upload and download.
        jobs: the running ones of all tabs.
    """

    key = "table"
    title = "Table"
    read_form = staticmethod(read_table_form)
    intro = (
        "The names of the columns in the first line; commas, semicolons or tabs; UTF-8. What does "
        "each column contribute to the prediction?"
    )

    def __init__(self, service: TableService, files: VisitorFiles, jobs: Jobs) -> None:
        super().__init__(files, jobs)
        self._service = service

    def _add_choices(self) -> list[Any]:
        if self._service.example is not None:
            example = gr.Button("Take the first rows of the references", elem_id="ul-table-example")
            example.click(self._take_example, None, self.file, **DIRECT)
        rows = gr.Textbox(
            "0",
            label=f"Rows to explain (0,5-9 or all; at most {MAX_EXPLAINED})",
            max_lines=1,
            elem_id="ul-table-rows",
        )
        target = gr.Dropdown(
            [("the class predicted", PREDICTED)],
            value=PREDICTED,
            label="Class to explain",
            elem_id="ul-table-target",
        )
        return [rows, target]

    def _add_results(self, shown: gr.State) -> list[Any]:
        row = gr.Dropdown(
            [("row 0", 0)], value=0, label="Row shown", elem_id="ul-table-shown", visible=False
        )
        unchecked(row)
        view = gr.HTML(elem_id="ul-table-row")
        summary = gr.HTML(elem_id="ul-table-summary")
        row.input(self._show_row, [shown, row], view, **QUEUED)
        return [row, view, summary]

    @with_short_errors
    def _take_example(self) -> str:
        data = csv_bytes(*_columns_and_rows(self._service.example))
        return self._visitor_files.write("example", "example.csv", data)

    @with_short_errors
    def _read(self, path: str | None) -> tuple[Any, ...]:
        if path is None:
            return "", method_choices([]), "0", class_choices([])
        file = self._csv(path)
        predictions = self._service.preview(file)
        preview = preview_html(file.frame.iloc[:PREVIEWED], predictions, len(file.frame))
        labels = _labels(self._service, predictions)
        return preview, method_choices(self._service.methods(file)), "0", class_choices(labels)

    @with_short_errors
    def _explain(  # the form of this tab
        self,
        path: str | None,
        rows: Any,
        target: Any,
        method: Any,
        seed: Any,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks at the default
    ) -> tuple[Any, ...]:
        file = self._csv(path)
        asked = self.read_form(rows, target, method, seed)
        with self._job(request, progress) as job:
            result = self._service.explain(file, asked, job)
        numbers = _numbers(result)
        choices = [
            (f"row {number}: {prediction_text(result, row)}", row)
            for row, number in enumerate(numbers)
        ]
        seconds = float(str(result.provenance["seconds"]))
        return (
            (path, asked.model_dump()),
            small(f"{len(result)} {'row' if len(result) == 1 else 'rows'} in {seconds:.1f} s."),
            None,
            gr.update(choices=choices, value=0, visible=len(choices) > 1),
            row_html(result, 0, numbers[0]),
            summary_html(result) if len(result) > 1 else "",
        )

    @with_short_errors
    def _show_row(self, shown: Shown | None, row: Any) -> str:
        _, _, result = self._current(shown)
        require(
            isinstance(row, int) and 0 <= row < len(result), "expected one of the rows explained"
        )
        return row_html(result, row, _numbers(result)[row])

    @with_short_errors
    def _write_files(self, shown: Shown | None, request: gr.Request) -> list[str]:
        file, asked, result = self._current(shown)
        contents = {
            ".csv": csv_bytes(*_columns_and_rows(result.to_frame())),
            ".png": figure_bytes(_figure(result)),
            ".py": python_code(self._service, file, asked, result).encode("utf-8", "replace"),
        }
        return self._write(file, asked.model_dump_json(), contents, visitor_id(request))

    def _current(self, shown: Shown | None) -> tuple[CsvFile, TableRequest, TableAttribution]:
        """Return what is shown, cached or computed again."""
        require(bool(shown), "expected a result on the page; press Explain first")
        path, values = shown or ("", {})
        file, request = self._csv(path), validated(TableRequest, values)
        return file, request, self._service.explain(file, request, Job())


def python_code(
    service: TableService, file: CsvFile, request: TableRequest, result: TableAttribution
) -> str:
    """Return the lines of Python that compute the same values."""
    label = service.given.label_column
    has_label = label in file.frame.columns
    drop = f".drop(columns={label!r})" if has_label else ""
    trust = "" if service.model_name.startswith("py:") else "  # runs the file's code"
    lines = [
        "from pathlib import Path",
        "",
        "from unilens.tables import explain",
        "from unilens.tables.files import load_model, read_table",
        "",
        f"model = load_model({service.model_name!r}, trust_pickle={bool(trust)}){trust}",
        f"frame = read_table(Path({printable(file.name)!r})){drop}",
    ]
    if service.given.references is not None:
        name, also = service.given.references.name, ""
        if label is not None:
            also = f".drop(columns={label!r})"
        lines.append(
            f"references = read_table(Path({name!r})){also}  # the page was opened with it"
        )
        lines.append("frame = frame[references.columns]")
    elif service.references_for(file) is not None:
        lines.append("references = frame")
    else:
        lines.append("references = None")
    lines += [
        "result = explain(",
        f"    model, frame.iloc[{_numbers(result)!r}], {service.target(request)!r}, "
        f"{request.method!r},",
        f"    references=references, seed={request.seed},",
        ")",
        "print(result)",
        f"result.to_frame().to_csv({file.stem + '-values.csv'!r}, index=False)",
    ]
    return "\n".join(lines) + "\n"


def _figure(result: TableAttribution) -> Any:
    if len(result) > 1:
        return beeswarm(result)
    base = float(result.base[0])
    draw = waterfall if base == base and result.attribution.complete else bars
    return draw(result, title=f"Row {_numbers(result)[0]}")


def _numbers(result: TableAttribution) -> list[int]:
    """Return the numbers of the rows in the file."""
    return [int(number) for number in result.to_frame()["row"].unique()]


def _labels(service: TableService, predictions: TableAttribution) -> list[str]:
    """Return the names of the classes; none for a single value."""
    count = predictions.attribution.outputs.shape[1]
    if service.classes is not None and len(service.classes) == count:
        return [shortened(label) for label in service.classes]
    return [f"output {index}" for index in range(count)] if count > 1 else []


def _columns_and_rows(frame: Any) -> tuple[list[str], list[list[object]]]:
    """Return the names and the cells of a frame of pandas; missing cells are empty."""
    cells = frame.astype(object).where(frame.notna(), "")
    return [str(name) for name in frame.columns], cells.to_numpy().tolist()

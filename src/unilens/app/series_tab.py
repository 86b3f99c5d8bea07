"""The tab of series: the time steps and channels of a CSV file."""

from __future__ import annotations

from typing import Any

import gradio as gr
from torch import Tensor

from ..attribution import Attribution
from ..errors import require
from ..output.text import printable
from ..output.viz import comparison
from .csv_files import CsvFile, csv_bytes
from .csv_render import figure_bytes, preview_html, series_html, shortened
from .csv_request import SeriesRequest, read_series_form
from .csv_tab import CsvTab, Shown, class_choices, method_choices
from .files import VisitorFiles
from .handlers import small, visitor_id, with_short_errors
from .jobs import Job, Jobs
from .layout import PREDICTED
from .request import validated
from .series_service import Series, SeriesService, time_column_of

_PREVIEWED = 8
_STRONGEST = 8
_NO_TIMES = ("none: every column is a channel", "")


class SeriesTab(CsvTab):
    """The tab of series.

    Args:
        service: does the work.
        files: what visitors upload and download.
        jobs: the running ones of all tabs.
    """

    key = "series"
    title = "Series"
    read_form = staticmethod(read_series_form)
    intro = (
        "A row for each time step and a column for each channel, with their names in the first "
        "line. A column of times is left out."
    )

    def __init__(self, service: SeriesService, files: VisitorFiles, jobs: Jobs) -> None:
        super().__init__(files, jobs)
        self._service = service

    def _add_choices(self) -> list[Any]:
        times = gr.Dropdown(
            [_NO_TIMES], value="", label="Column of times", elem_id="ul-series-times"
        )
        target = gr.Dropdown(
            [("the class predicted", PREDICTED)],
            value=PREDICTED,
            label="Class to explain",
            elem_id="ul-series-target",
        )
        step = gr.Dropdown(
            [("step 0", 0)],
            value=0,
            label="Step of the forecast",
            elem_id="ul-series-step",
            visible=False,
        )
        output = gr.Dropdown(
            [("series 0", 0)],
            value=0,
            label="Series of the forecast",
            elem_id="ul-series-output",
            visible=False,
        )
        return [times, target, step, output]

    def _add_results(self, shown: gr.State) -> list[Any]:
        return [gr.HTML(elem_id="ul-series-view")]

    @with_short_errors
    def _read(self, path: str | None) -> tuple[Any, ...]:
        if path is None:
            times = gr.update(choices=[_NO_TIMES], value="")
            hidden = gr.update(visible=False)
            return "", method_choices([]), times, class_choices([]), hidden, hidden
        file = self._csv(path)
        names = list(map(str, file.frame.columns))
        time_column = time_column_of(file.frame)
        series = self._service.read(file, time_column)
        times = gr.update(
            choices=[_NO_TIMES, *((shortened(name), name) for name in names)],
            value=time_column or "",
        )
        return (
            preview_html(file.frame.iloc[:_PREVIEWED], None, len(file.frame)),
            method_choices(self._service.methods(series)),
            times,
            *self._outputs(series),
        )

    def _outputs(self, series: Series) -> tuple[Any, Any, Any]:
        """Return updates of the pickers of class, step and series; one or two apply."""
        outputs, hidden = series.outputs, gr.update(visible=False)
        if not self._service.is_forecast(series):
            labels = [f"class {index}" for index in range(len(outputs))]
            return class_choices(labels), hidden, hidden
        steps = [(f"step {index}", index) for index in range(len(outputs))]
        width = outputs.shape[1] if outputs.ndim == 2 else 1
        names = (
            series.names if width == len(series.names) else [f"series {i}" for i in range(width)]
        )
        outputs_ = [(shortened(name), index) for index, name in enumerate(names)]
        return (
            class_choices([]),
            gr.update(choices=steps, value=0, visible=True),
            gr.update(choices=outputs_, value=0, visible=width > 1),
        )

    @with_short_errors
    def _explain(  # the form of this tab
        self,
        path: str | None,
        times: Any,
        target: Any,
        step: Any,
        output: Any,
        method: Any,
        seed: Any,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks at the default
    ) -> tuple[Any, ...]:
        file = self._csv(path)
        asked = self.read_form(times, target, step, output, method, seed)
        with self._job(request, progress) as job:
            series, attribution = self._service.explain(file, asked, job)
        unit, score = self._service.score(series, attribution)
        html = series_html(
            attribution,
            self._figure(series, attribution),
            _strongest(series, self._service.by_step(attribution)),
            question=self._question(series, attribution, asked),
            unit=unit,
            score=score,
        )
        seconds = float(str(attribution.provenance["seconds"]))
        status = small(f"{len(series.values)} time steps in {seconds:.1f} s.")
        return (path, asked.model_dump()), status, None, html

    @with_short_errors
    def _write_files(self, shown: Shown | None, request: gr.Request) -> list[str]:
        require(bool(shown), "expected a result on the page; press Explain first")
        path, values = shown or ("", {})
        file, asked = self._csv(path), validated(SeriesRequest, values)
        series, attribution = self._service.explain(file, asked, Job())
        code = python_code(self._service, file, asked, series)
        contents = {
            ".csv": csv_bytes(*_long_table(series, self._service.by_step(attribution))),
            ".png": figure_bytes(self._figure(series, attribution)),
            ".py": code.encode("utf-8", "replace"),
        }
        return self._write(file, asked.model_dump_json(), contents, visitor_id(request))

    def _question(self, series: Series, attribution: Attribution, request: SeriesRequest) -> str:
        if not self._service.is_forecast(series):
            return f"Why class {int(attribution.target[0])}?"
        width = series.outputs.shape[1] if series.outputs.ndim == 2 else 1
        names = (
            series.names if width == len(series.names) else [f"series {i}" for i in range(width)]
        )
        of_series = f" of {shortened(names[request.series])}" if width > 1 else ""
        return f"Why this forecast of step {request.step}{of_series}?"

    def _figure(self, series: Series, attribution: Attribution) -> Any:
        return comparison(
            self._service.inputs(series.values)[0],
            {str(attribution.provenance["method"]): attribution},
            channels=self._service.given.channels,
            names=series.names,
        )


def _strongest(series: Series, values: Tensor) -> list[tuple[str, str, float]]:
    """Return the names, the cells and the values of the strongest cells of a map `(T, F)`."""
    count = min(_STRONGEST, values.numel())
    order = values.double().nan_to_num().abs().flatten().topk(count).indices.tolist()
    found = []
    for index in order:
        step, channel = divmod(index, values.shape[1])
        if not float(values[step, channel]):
            continue
        name = f"{series.names[channel]}, step {step}"
        if series.times[step] != str(step):
            name += f" ({series.times[step]})"
        cell = f"{float(series.values[step, channel]):.4g}"
        found.append((name, cell, float(values[step, channel])))
    return found


def _long_table(series: Series, values: Tensor) -> tuple[list[str], list[list[object]]]:
    """Return a line for each time step and channel, with its value and its attribution."""
    rows: list[list[object]] = [
        [step, series.times[step], name, float(series.values[step, channel]), attribution]
        for step, row in enumerate(values.tolist())
        for channel, (name, attribution) in enumerate(zip(series.names, row, strict=True))
    ]
    return ["step", "time", "channel", "value", "attribution"], rows


def python_code(
    service: SeriesService, file: CsvFile, request: SeriesRequest, series: Series
) -> str:
    """Return the lines of Python that compute the same map."""
    first, name = service.given.channels == "first", printable(file.name)
    drop = f".drop(columns={request.time_column!r})" if request.time_column else ""
    target = f", target={request.target}" if request.target is not None else ""
    imports = ["from unilens import explain"]
    if service.is_forecast(series):
        target = f", score=forecast({request.step}, {request.series})"
        imports.append("from unilens.scores import forecast")
    lines = [
        "from pathlib import Path",
        "",
        "import torch",
        "",
        *imports,
        "from unilens.tables.files import load_model, read_table",
        "from unilens.viz import comparison",
        "",
        f"model = load_model({service.given.model!r}, trust_pickle=False)",
        f"frame = read_table(Path({name!r})){drop}",
        f"values = torch.tensor(frame.to_numpy('float64'), dtype={series.values.dtype})",
        f"inputs = values{'.T' if first else ''}[None].contiguous()",
        f"result = explain(model, inputs, {request.method!r}{target}, "
        f"seed={request.seed}, channels={service.given.channels!r})",
        "print(result)",
        "figure = comparison(inputs[0], {'map': result}, names=list(map(str, frame.columns)), "
        f"channels={service.given.channels!r})",
        f"figure.savefig({file.stem + '-unilens.png'!r})",
    ]
    return "\n".join(lines) + "\n"

"""The page: what happens when its components are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import gradio as gr

from ..errors import UnilensError
from .api import add_endpoints
from .checks import run_checks
from .csv_tab import CsvTab
from .files import VisitorFiles, page_state
from .handlers import (
    ONE_AT_A_TIME,
    PRIVATE,
    progress_callback,
    small,
    visitor_id,
    with_short_errors,
)
from .jobs import Job, Jobs
from .layout import PREDICTED, Layout, add_header
from .photograph import read_photograph, sample_photograph
from .render import checks_html, maps_html, path_html, predictions_html, trust_html
from .request import ExplainRequest, PageState, read_form, read_link, read_request, read_state
from .series_service import SeriesService
from .series_tab import SeriesTab
from .service import ExplainService, Explanation
from .table_service import TableService
from .table_tab import TableTab
from .trust import trust_report
from .upload import refuse_links

Shown = tuple[str, dict[str, Any]]
"""What is on the page: the path of the photograph, and the request as plain values."""


class Page:
    """The page of a service.

    Args:
        service: does the work of photographs.
        files: what visitors upload and download.
        table: does the work of tables; None for a page without.
        series: does the work of series; None for a page without.
    """

    def __init__(
        self,
        service: ExplainService,
        files: VisitorFiles,
        table: TableService | None = None,
        series: SeriesService | None = None,
    ) -> None:
        self.service, self.jobs, self._visitor_files = service, Jobs(), files
        self._tabs: list[CsvTab] = []
        if table is not None:
            self._tabs.append(TableTab(table, files, self.jobs))
        if series is not None:
            self._tabs.append(SeriesTab(series, files, self.jobs))

    def build(self) -> gr.Blocks:
        """Return the page."""
        with gr.Blocks(title="unilens", analytics_enabled=False, fill_width=True) as blocks:
            add_header(bool(self._tabs))
            if self._tabs:
                with gr.Tabs(elem_id="ul-tabs"):
                    with gr.Tab("Photograph"):
                        layout = Layout(self.service.models)
                    for tab in self._tabs:
                        with gr.Tab(tab.title):
                            tab.build()
            else:
                layout = Layout(self.service.models)
            self._connect(blocks, layout)
            add_endpoints(self.service, self._visitor_files)
        refuse_links(blocks)
        return blocks

    def _connect(self, blocks: gr.Blocks, layout: Layout) -> None:
        """Connect the components to their handlers."""
        queued = {**ONE_AT_A_TIME, **PRIVATE}
        direct: dict[str, Any] = {"queue": False, **PRIVATE}
        gr.on(
            [layout.photograph.change, layout.model.change],
            self._predict,
            [layout.photograph, layout.model],
            [layout.predictions, layout.target],
            show_progress="minimal",
            **queued,
        )
        # not `input`, which comes twice for one choice
        layout.sample.select(self._take_sample, layout.sample, layout.photograph, **direct)
        explaining = layout.explain.click(
            self._explain,
            layout.form,
            [layout.shown, layout.status, layout.maps, layout.trust, layout.link],
            show_progress_on=[layout.status],
            **queued,
        )
        details = explaining.success(
            self._details,
            layout.shown,
            [layout.path, layout.trust, layout.checks, layout.files],
            show_progress_on=[layout.path],
            **queued,
        )
        checking = layout.check.click(
            self._check, layout.shown, layout.checks, show_progress_on=[layout.checks], **queued
        )
        layout.prepare.click(self._write_files, layout.shown, layout.files, **queued)
        panels = layout.panels.connect(
            self.service, self._visitor_files, self.jobs, self._current, layout
        )
        work = [explaining, details, checking, *panels]
        layout.cancel.click(self._cancel, None, layout.status, cancels=work, **direct)
        layout.restore.upload(self._restore_file, layout.restore, layout.form, **PRIVATE)
        blocks.load(self._restore_link, None, layout.form, **PRIVATE)
        blocks.unload(self._leave)
        layout.opacity.input(None, layout.opacity, None, js="unilens.opacity")

    @with_short_errors
    def _predict(self, path: str | None, model: str) -> tuple[str, Any]:
        classifier = self.service.classifier(model)
        labels = [(classifier.label(index), index) for index in range(len(classifier.labels))]
        if path is None:
            choices = [("the class predicted", PREDICTED), *labels]
            return "", gr.update(choices=choices, value=PREDICTED)
        photograph = self._visitor_files.read(path)
        predictions = self.service.predictions(photograph, model)
        likely = [(prediction["label"], prediction["index"]) for prediction in predictions]
        predicted = (f"the class predicted: {predictions[0]['label']}", PREDICTED)
        size = " × ".join(map(str, photograph.image.size))
        return (
            predictions_html(predictions, f"{photograph.name}, {size} pixels"),
            gr.update(choices=[predicted, *likely, *labels]),
        )

    @with_short_errors
    def _take_sample(self, name: str | None) -> str | None:
        if name is None:
            return None
        return self._visitor_files.write_photograph(sample_photograph(str(name)))

    @with_short_errors
    def _explain(
        self,
        path: str | None,
        model: str,
        names: Sequence[str],
        target: int | None,
        seed: float,
        settings: Mapping[str, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - gradio looks at the default
    ) -> tuple[Any, ...]:
        if path is None:
            raise UnilensError("expected a photograph; drop one, or pick a sample")
        photograph = self._visitor_files.read(path)
        asked = _read_inputs(model, names, target, seed, settings)
        with self._job(request, progress) as job:
            explanation = self.service.explain(photograph, asked, job)
        maps = explanation.attributions
        seconds = sum(float(str(map_.provenance["seconds"])) for map_ in maps.values())
        return (
            (path, asked.model_dump()),
            small(f"{len(maps)} map(s) in {seconds:.1f} s."),
            maps_html(explanation),
            trust_html({name: trust_report(attribution) for name, attribution in maps.items()}),
            "?state=" + page_state(photograph, asked).link() if photograph.sample else "",
        )

    @with_short_errors
    def _details(
        self,
        shown: Shown | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        with self._job(request, progress) as job:
            explanation = self._current(shown, job)
            paths = self.service.path_steps(explanation, job)
            maps = self.service.with_stability(explanation, job)
        return (
            path_html(explanation, paths),
            trust_html({name: trust_report(attribution) for name, attribution in maps.items()}),
            "",
            None,
        )

    @with_short_errors
    def _check(
        self,
        shown: Shown | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        with self._job(request, progress) as job:
            return checks_html(run_checks(self.service, self._current(shown, job), job))

    @with_short_errors
    def _write_files(self, shown: Shown | None) -> list[str]:
        return self._visitor_files.write_downloads(self._current(shown, Job()))

    def _cancel(self, request: gr.Request) -> str:
        count = self.jobs.cancel(visitor_id(request))
        return small("Cancelled." if count else "Nothing was running.")

    def _leave(self, request: gr.Request) -> None:
        self.jobs.cancel(visitor_id(request))

    @with_short_errors
    def _restore_file(self, file: str | None) -> tuple[Any, ...]:
        if file is None:
            raise UnilensError("expected a downloaded page, got none")
        return self._form_values(read_state(self._visitor_files.read_bytes(file)))

    @with_short_errors
    def _restore_link(self, request: gr.Request) -> tuple[Any, ...]:
        link = request.query_params.get("state")
        if not link:
            return tuple(gr.skip() for _ in range(6))
        return self._form_values(read_link(link))

    def _form_values(self, state: PageState) -> tuple[Any, ...]:
        """Return the values of the form that a state describes."""
        request = state.request
        request.check(self.service.models)
        classifier = self.service.classifier(request.model)
        for method in request.methods:
            method.explainer(classifier)
        path: Any = gr.skip()
        if state.sample is not None:
            path = self._visitor_files.write_photograph(sample_photograph(state.sample))
        elif state.photograph is not None:
            photograph = read_photograph(state.photograph.decode(), state.photograph.name)
            path = self._visitor_files.write_photograph(photograph)
        return (
            path,
            request.model,
            [method.name for method in request.methods],
            PREDICTED if request.target is None else request.target,
            request.seed,
            {method.name: dict(method.settings) for method in request.methods},
        )

    def _job(self, request: gr.Request, progress: gr.Progress) -> AbstractContextManager[Job]:
        return self.jobs.track(visitor_id(request), Job(progress_callback(progress)))

    def _current(self, shown: Shown | None, job: Job) -> Explanation:
        """Return the explanation on the page, cached or computed again."""
        if not shown:
            raise UnilensError("expected maps on the page; press Explain first")
        path, values = shown
        return self.service.explain(self._visitor_files.read(path), read_request(values), job)


def _read_inputs(
    model: str, names: Sequence[str], target: int | None, seed: float, settings: Mapping[str, Any]
) -> ExplainRequest:
    chosen = [
        {"name": name, "settings": settings.get(name, {}) if isinstance(name, str) else {}}
        for name in (names if isinstance(names, list) else [names])
    ]
    return read_form(model, chosen, None if target == PREDICTED else target, seed)

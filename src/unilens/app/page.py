"""The page: what happens when its components are used."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import gradio as gr

from ..errors import UnilensError
from .api import add_endpoints
from .checks import run_checks
from .csv_tab import DIRECT, QUEUED, CsvTab
from .files import VisitorFiles, page_state
from .handlers import (
    ONE_BESIDE,
    progress_callback,
    small,
    visitor_id,
    with_short_errors,
)
from .jobs import Job, Jobs
from .layout import PREDICTED, Layout, add_header, class_choices
from .opening import SAMPLE, Opening
from .outdated import notice
from .photograph import read_photograph, sample_photograph
from .render import (
    checks_html,
    maps_html,
    path_html,
    predictions_html,
    trust_html,
)
from .request import ExplainRequest, PageState, read_form, read_link, read_request, read_state
from .series_service import SeriesService
from .series_tab import SeriesTab
from .service import ExplainService, Explanation
from .table_service import TableService
from .table_tab import TableTab
from .trust import trust_report
from .upload import SafeBlocks
from .wording import by_recommendation

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
        self.opening = Opening(service)
        self._tabs: list[CsvTab] = []
        if table is not None:
            self._tabs.append(TableTab(table, files, self.jobs))
        if series is not None:
            self._tabs.append(SeriesTab(series, files, self.jobs))

    def build(self) -> gr.Blocks:
        """Return the page."""
        with SafeBlocks(title="unilens", analytics_enabled=False, fill_width=True) as blocks:
            blocks.visitor_files = self._visitor_files
            add_header(bool(self._tabs))
            if self._tabs:
                with gr.Tabs(elem_id="ul-tabs"):
                    with gr.Tab("Photograph"):
                        layout = self._layout()
                    for tab in self._tabs:
                        with gr.Tab(tab.title):
                            tab.build()
            else:
                layout = self._layout()
            self._connect(blocks, layout)
            add_endpoints(self.service, self._visitor_files, self.jobs)
        return blocks

    def _layout(self) -> Layout:
        return Layout(self.service.models, self.opening.methods_for(self.service.models[0]))

    def _connect(self, blocks: gr.Blocks, layout: Layout) -> None:
        """Connect the components to their handlers."""
        work = self._connect_work(layout)
        chosen = [layout.target, layout.sample, layout.asked]
        form = [*layout.form, layout.sample, layout.asked]
        start: dict[str, Any] = {"cancels": work, "show_progress": "hidden", **ONE_BESIDE}
        layout.photograph.upload(self._take_upload, None, chosen, js="unilens.release", **start)
        layout.photograph.clear(
            lambda: ("", None), None, [layout.predictions, layout.sample], **DIRECT
        )
        layout.sample.select(
            self._take_sample, layout.sample, [layout.photograph, *chosen], **start
        )
        gr.on(
            [layout.explain.click, layout.outdated.select], self._ask, None, layout.asked, **start
        )
        layout.restore.upload(self._restore_file, layout.restore, form, **start)
        blocks.load(self._open, None, form, js="unilens.open", **start)
        blocks.unload(self._leave)
        layout.cancel.click(self._cancel, None, layout.status, cancels=work, **DIRECT)
        changing = layout.model.input(
            self._change_model,
            [layout.photograph, layout.model, layout.methods],
            [layout.predictions, layout.target, layout.methods],
            trigger_mode="always_last",
            **QUEUED,
        )
        changing.failure(lambda: "", None, layout.predictions, **DIRECT)
        layout.asked.change(lambda: "", None, layout.status, **DIRECT)
        gr.on(
            [component.change for component in (*layout.form, layout.shown)],
            self._compare,
            [layout.shown, *layout.form],
            layout.outdated,
            show_progress="hidden",
            trigger_mode="always_last",
            **DIRECT,
        )
        layout.opacity.input(None, layout.opacity, None, js="unilens.opacity")

    def _connect_work(self, layout: Layout) -> list[Any]:
        """Connect what takes time, and return its events: it begins whenever `asked` changes."""
        predicting = layout.asked.change(
            self._predict,
            [layout.photograph, layout.model, layout.methods],
            [layout.predictions, layout.target, layout.methods],
            show_progress_on=[layout.status],
            **QUEUED,
        )
        predicting.failure(lambda: "", None, layout.predictions, **DIRECT)
        explaining = predicting.success(
            self._explain,
            layout.form,
            [
                *(layout.shown, layout.status, layout.maps, layout.trust, layout.link),
                *(layout.outdated, layout.path, layout.checks, layout.files),
            ],
            show_progress_on=[layout.status, layout.maps],
            **QUEUED,
        )
        linking = explaining.success(None, layout.link, layout.link, js="unilens.show", **DIRECT)
        details = linking.success(
            self._details,
            [layout.shown, layout.methods],
            [layout.path, layout.trust, layout.methods],
            show_progress_on=[layout.path],
            **QUEUED,
        )
        checking = layout.check.click(
            self._check, layout.shown, layout.checks, show_progress_on=[layout.checks], **QUEUED
        )
        layout.prepare.click(self._write_files, layout.shown, layout.files, **QUEUED)
        panels = layout.panels.connect(
            self.service, self._visitor_files, self.jobs, self._current, layout
        )
        return [predicting, explaining, details, checking, *panels]

    @with_short_errors
    def _predict(self, path: str | None, model: str, names: Any) -> tuple[Any, ...]:
        classifier = self.service.classifier(model)
        offered = gr.update(choices=self._offered(model, names))
        if path is None:
            return "", gr.update(choices=class_choices(classifier), value=PREDICTED), offered
        photograph = self._visitor_files.read(path)
        predictions = self.service.predictions(photograph, model)
        classes = class_choices(classifier, predictions)
        size = " × ".join(map(str, photograph.image.size))
        shown = predictions_html(predictions, f"{photograph.name}, {size} pixels")
        return shown, gr.update(choices=classes), offered

    def _change_model(self, path: str | None, model: str, names: Any) -> tuple[Any, ...]:
        """Return the predictions of another model, whose classes are others."""
        shown, classes, offered = self._predict(path, model, names)
        return shown, {**classes, "value": PREDICTED}, offered

    def _offered(self, model: str, names: Any) -> list[tuple[str, str]]:
        """Return titles and names of the methods that fit a model, and of those in a list."""
        chosen = [name for name in names if isinstance(name, str)] if names else []
        return by_recommendation([*self.opening.methods_for(model), *chosen])

    def _take_upload(self, request: gr.Request) -> tuple[Any, ...]:
        return PREDICTED, None, self._new_work(request)

    @with_short_errors
    def _take_sample(self, name: str | None, request: gr.Request) -> tuple[Any, ...]:
        path = self._visitor_files.write_photograph(sample_photograph(str(name)))
        return path, PREDICTED, name, self._new_work(request)

    def _ask(self, request: gr.Request) -> str:
        return self._new_work(request)

    def _new_work(self, request: gr.Request) -> str:
        """End what runs for a visitor, and return a new value of `asked`, which begins the next."""
        self.jobs.cancel(visitor_id(request))
        return uuid.uuid4().hex

    @with_short_errors
    def _compare(self, shown: Shown | None, path: str | None, *form: Any) -> str:
        """Return a notice if the maps on the page are not those of the form."""
        return notice(shown, path, lambda: _read_inputs(*form))

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
            small(f"{len(maps)} {'map' if len(maps) == 1 else 'maps'} in {seconds:.1f} s."),
            maps_html(explanation),
            trust_html({name: trust_report(attribution) for name, attribution in maps.items()}),
            "?state=" + page_state(photograph, asked).link() if photograph.sample else "",
            *("", "", "", None),  # what is below belongs to the maps before
        )

    @with_short_errors
    def _details(
        self,
        shown: Shown | None,
        names: Any,
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
            gr.update(choices=self._offered(explanation.request.model, names)),
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
    def _write_files(self, shown: Shown | None, request: gr.Request) -> list[str]:
        explanation = self._current(shown, Job())
        return self._visitor_files.write_downloads(explanation, visitor_id(request))

    def _cancel(self, request: gr.Request) -> str:
        count = self.jobs.cancel(visitor_id(request))
        return small("Cancelled." if count else "Nothing was running.")

    def _leave(self, request: gr.Request) -> None:
        self.jobs.cancel(visitor_id(request))

    @with_short_errors
    def _restore_file(self, file: str | None, request: gr.Request) -> tuple[Any, ...]:
        if file is None:
            raise UnilensError("expected a downloaded page, got none")
        state = read_state(self._visitor_files.read_bytes(file))
        return *self._form_values(state, visitor_id(request)), self._new_work(request)

    @with_short_errors
    def _open(self, request: gr.Request) -> tuple[Any, ...]:
        link = request.query_params.get("state")
        opened = PageState(request=self.opening.request(), sample=SAMPLE)
        state = read_link(link) if link else opened
        return *self._form_values(state, visitor_id(request)), self._new_work(request)

    def _form_values(self, state: PageState, visitor: str) -> tuple[Any, ...]:
        """Return the values of the form that a state describes, and the name of its sample."""
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
            path = self._visitor_files.write_photograph(photograph, visitor)
        target = PREDICTED if request.target is None else request.target
        names = [method.name for method in request.methods]
        return (
            path,
            request.model,
            gr.update(choices=self._offered(request.model, names), value=names),
            target,
            request.seed,
            {method.name: dict(method.settings) for method in request.methods},
            state.sample,
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

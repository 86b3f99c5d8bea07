"""The page: its parts, and what happens when they are used."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import gradio as gr

from ..errors import UnilensError
from ..methods import methods
from ..models import samples
from .api import add_endpoints
from .checks import run_checks
from .files import VisitorFiles, page_state
from .handlers import ONE_AT_A_TIME, PRIVATE, progress_callback, visitor_id, with_short_errors
from .jobs import Job, Jobs
from .path_steps import N_STOPS
from .photograph import MAX_BYTES, read_photograph, sample_photograph
from .render import checks_html, maps_html, path_html, predictions_html, trust_html
from .request import (
    MAX_METHODS,
    ExplainRequest,
    PageState,
    read_form,
    read_link,
    read_request,
    read_state,
    setting_fields,
)
from .service import ExplainService, Explanation
from .trust import answers
from .upload import photograph_upload, refuse_links, unchecked

_PREDICTED = -1
"""Value of the target field for the predicted class."""
Shown = tuple[str, dict[str, Any]]
"""What is on the page: the path of the photograph, and the request as plain values."""


class Page:
    """The page of a service.

    Args:
        service: does the work.
        files: what visitors upload and download.
    """

    def __init__(self, service: ExplainService, files: VisitorFiles) -> None:
        self.service, self.jobs, self._visitor_files = service, Jobs(), files

    def build(self) -> gr.Blocks:
        """Return the page."""
        with gr.Blocks(title="unilens", analytics_enabled=False, fill_width=True) as blocks:
            gr.HTML(
                "<header><h1>unilens</h1><p>What did the network see? Drop a photograph, choose a "
                "class, compare methods, and find out which of them to trust.</p></header>",
                elem_id="ul-header",
            )
            with gr.Row(elem_id="ul-main"):
                with gr.Column(scale=3, min_width=300):
                    self._add_inputs()
                with gr.Column(scale=9, min_width=320):
                    self._add_outputs()
            self._connect(blocks)
            add_endpoints(self.service, self._visitor_files)
        refuse_links(blocks)
        return blocks

    def _add_inputs(self) -> None:
        """Lay out what the visitor chooses."""
        self.photograph = photograph_upload(
            label=f"Photograph (at most {MAX_BYTES // 2**20} MB)",
            sources=["upload", "clipboard"],
            height=260,
            elem_id="ul-photograph",
            alt_text="The photograph to be explained",
        )
        self.sample = gr.Dropdown(
            [(f"{name}: {entry.card.summary}", name) for name, entry in samples.items()],
            value=None,
            label="… or a sample",
            elem_id="ul-sample",
        )
        self.model = gr.Dropdown(
            list(self.service.models),
            value=self.service.models[0],
            label="Model",
            elem_id="ul-model",
            visible=len(self.service.models) > 1,
        )
        self.predictions = gr.HTML(elem_id="ul-predictions")
        self.target = gr.Dropdown(
            [("the class predicted", _PREDICTED)],
            value=_PREDICTED,
            label="Class to explain",
            elem_id="ul-target",
            filterable=True,
        )
        self.methods = gr.Dropdown(
            [(f"{name}: {entry.card.summary}", name) for name, entry in methods.items()],
            value=["uni"],
            multiselect=True,
            max_choices=MAX_METHODS,
            label=f"Methods (one to {MAX_METHODS})",
            elem_id="ul-methods",
        )
        with gr.Row():
            self.explain = gr.Button("Explain", variant="primary", elem_id="ul-explain")
            self.cancel = gr.Button("Cancel", elem_id="ul-cancel")
        self.settings = gr.State({})
        with gr.Accordion("Advanced settings", open=False, elem_id="ul-advanced"):
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, elem_id="ul-seed")
            gr.render(
                inputs=[self.methods, self.settings], triggers=[self.methods.change], queue=False
            )(self._render_settings)
        for component in (self.sample, self.model, self.target, self.methods, self.seed):
            unchecked(component)
        self.restore = gr.UploadButton(
            "Open a downloaded page", file_types=[".json"], size="sm", elem_id="ul-restore"
        )

    def _render_settings(self, names: Sequence[str], chosen: Mapping[str, Any]) -> None:
        listed = names if isinstance(names, list) else []
        for name in [name for name in listed if isinstance(name, str) and name in methods]:
            settings = dict(chosen.get(name, {}))
            gr.Markdown(f"**{name}** · {methods[name].card.reference}")
            for field in setting_fields(name, settings):
                value = settings.get(field.name, field.default)
                look: dict[str, Any] = {"label": field.name.replace("_", " "), "interactive": True}
                component: Any
                if field.choices:
                    component = gr.Dropdown(list(field.choices), value=value, **look)
                elif isinstance(field.default, bool):
                    component = gr.Checkbox(bool(value), **look)
                else:
                    precision = 0 if isinstance(field.default, int) else None
                    component = gr.Number(value, precision=precision, **look)
                change = functools.partial(_with_setting, name, field.name, field.default)
                component.change(
                    change, [self.settings, component], self.settings, queue=False, **PRIVATE
                )

    def _add_outputs(self) -> None:
        """Lay out what the visitor sees."""
        self.shown = gr.State(None)
        self.status = gr.HTML(_small("Nothing explained yet."), elem_id="ul-status")
        self.opacity = gr.Slider(
            0, 1, 0.85, step=0.05, label="Opacity of the overlay", elem_id="ul-opacity"
        )
        self.maps = gr.HTML(elem_id="ul-maps")
        with gr.Accordion("The path: from the baseline to the photograph", elem_id="ul-path"):
            self.stop = gr.Slider(
                0, N_STOPS - 1, 0, step=1, label="Along the path (0: baseline)", elem_id="ul-stop"
            )
            self.path = gr.HTML(elem_id="ul-path-view")
        with gr.Accordion("Can I trust this?", elem_id="ul-trust-part"):
            self.trust = gr.HTML(elem_id="ul-trust")
            self.check = gr.Button(
                "Run the slower checks (insertion, deletion, noise, random weights)",
                elem_id="ul-check",
            )
            self.checks = gr.HTML(elem_id="ul-checks")
        with gr.Accordion("Download", open=False, elem_id="ul-take"):
            self.link = gr.Textbox(
                label="Link to this page (samples only: a photograph does not fit into a link)",
                interactive=False,
                buttons=["copy"],
                elem_id="ul-link",
            )
            self.prepare = gr.Button(
                "Prepare figure, maps, record, page and Python code", elem_id="ul-prepare"
            )
            self.files = gr.Files(label="Files", interactive=False, elem_id="ul-files")

    def _connect(self, blocks: gr.Blocks) -> None:
        """Connect the components to their handlers."""
        queued = {**ONE_AT_A_TIME, **PRIVATE}
        direct: dict[str, Any] = {"queue": False, **PRIVATE}
        form = [self.photograph, self.model, self.methods, self.target, self.seed, self.settings]
        gr.on(
            [self.photograph.change, self.model.change],
            self._predict,
            [self.photograph, self.model],
            [self.predictions, self.target],
            show_progress="minimal",
            **queued,
        )
        # not `input`, which comes twice for one choice
        self.sample.select(self._take_sample, self.sample, self.photograph, **direct)
        explaining = self.explain.click(
            self._explain,
            form,
            [self.shown, self.status, self.maps, self.trust, self.link],
            show_progress_on=[self.status],
            **queued,
        )
        details = explaining.success(
            self._details,
            self.shown,
            [self.path, self.trust, self.stop, self.checks, self.files],
            show_progress_on=[self.path],
            **queued,
        )
        checking = self.check.click(
            self._check, self.shown, self.checks, show_progress_on=[self.checks], **queued
        )
        self.prepare.click(self._write_files, self.shown, self.files, **queued)
        self.cancel.click(
            self._cancel, None, self.status, cancels=[explaining, details, checking], **direct
        )
        self.restore.upload(self._restore_file, self.restore, form, **PRIVATE)
        blocks.load(self._restore_link, None, form, **PRIVATE)
        blocks.unload(self._leave)
        self.opacity.input(None, self.opacity, None, js="unilens.opacity")
        self.stop.change(None, self.stop, None, js="unilens.stop")

    @with_short_errors
    def _predict(self, path: str | None, model: str) -> tuple[str, Any]:
        classifier = self.service.classifier(model)
        labels = [(classifier.label(index), index) for index in range(len(classifier.labels))]
        if path is None:
            choices = [("the class predicted", _PREDICTED), *labels]
            return "", gr.update(choices=choices, value=_PREDICTED)
        photograph = self._visitor_files.read(path)
        predictions = self.service.predictions(photograph, model)
        likely = [(prediction["label"], prediction["index"]) for prediction in predictions]
        predicted = (f"the class predicted: {predictions[0]['label']}", _PREDICTED)
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
            _small(f"{len(maps)} map(s) in {seconds:.1f} s."),
            maps_html(explanation),
            trust_html({name: answers(attribution) for name, attribution in maps.items()}),
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
            trust_html({name: answers(attribution) for name, attribution in maps.items()}),
            gr.update(value=0),
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
        return _small("Cancelled." if count else "Nothing was running.")

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
            _PREDICTED if request.target is None else request.target,
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


def _with_setting(
    method: str, name: str, default: object, settings: dict[str, Any], value: object
) -> dict[str, Any]:
    """Return the settings with one changed; a default is left out."""
    changed = {**settings.get(method, {}), name: value}
    if value == default:
        del changed[name]
    elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        changed[name] = float(value)
    return {**settings, method: changed}


def _read_inputs(
    model: str, names: Sequence[str], target: int | None, seed: float, settings: Mapping[str, Any]
) -> ExplainRequest:
    chosen = [
        {"name": name, "settings": settings.get(name, {}) if isinstance(name, str) else {}}
        for name in (names if isinstance(names, list) else [names])
    ]
    return read_form(model, chosen, None if target == _PREDICTED else target, seed)


def _small(text: str) -> str:
    return f"<p class='ul-small'>{text}</p>"

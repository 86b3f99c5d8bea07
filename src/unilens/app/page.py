"""The page: its parts, and what happens when they are used."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ..attribution import Attribution
from ..errors import UnilensError
from ..methods import methods
from ..models import samples
from .api import offer
from .checks import check
from .downloads import state_of
from .files import Files
from .handlers import ONE_AT_A_TIME, PRIVATE, plainly, report, visitor
from .jobs import Job, Jobs
from .journey import STOPS
from .photograph import MOST_BYTES, read_photograph, sample_photograph
from .render import checks_html, journey_html, maps_html, predictions_html, trust_html
from .settings import fields_of
from .studio import Explained, Studio
from .trust import findings
from .upload import as_given, upload, without_links
from .wanted import MOST_METHODS, State, Wanted, read_asked, read_link, read_state, read_wanted


class Page:
    """A page over a studio.

    Args:
        studio: does the work.
        files: what visitors bring and take.
    """

    def __init__(self, studio: Studio, files: Files) -> None:
        self.studio, self.jobs, self._visitors = studio, Jobs(), files

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
                    self._ask()
                with gr.Column(scale=9, min_width=320):
                    self._show()
            self._connect(blocks)
            offer(self.studio, self._visitors)
        without_links(blocks)
        return blocks

    def _ask(self) -> None:
        """Lay out what the visitor chooses."""
        self.photograph = upload(
            label=f"Photograph (at most {MOST_BYTES // 2**20} MB)",
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
            list(self.studio.models),
            value=self.studio.models[0],
            label="Model",
            elem_id="ul-model",
            visible=len(self.studio.models) > 1,
        )
        self.predictions = gr.HTML(elem_id="ul-predictions")
        self.target = gr.Dropdown(
            [("the class predicted", -1)],
            value=-1,
            label="Class to explain",
            elem_id="ul-target",
            filterable=True,
        )
        self.methods = gr.Dropdown(
            [(f"{name}: {entry.card.summary}", name) for name, entry in methods.items()],
            value=["uni"],
            multiselect=True,
            max_choices=MOST_METHODS,
            label=f"Methods (one to {MOST_METHODS})",
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
        for part in (self.sample, self.model, self.target, self.methods, self.seed):
            as_given(part)
        self.restore = gr.UploadButton(
            "Open a downloaded page", file_types=[".json"], size="sm", elem_id="ul-restore"
        )

    def _render_settings(self, names: Sequence[str], given: Mapping[str, Any]) -> None:
        listed = names if isinstance(names, list) else []
        for name in [name for name in listed if isinstance(name, str) and name in methods]:
            own = dict(given.get(name, {}))
            gr.Markdown(f"**{name}** · {methods[name].card.reference}")
            for field in fields_of(name, own):
                value = own.get(field.name, field.default)
                shown: dict[str, Any] = {"label": field.name.replace("_", " "), "interactive": True}
                part: Any
                if field.choices:
                    part = gr.Dropdown(list(field.choices), value=value, **shown)
                elif isinstance(field.default, bool):
                    part = gr.Checkbox(bool(value), **shown)
                else:
                    whole = isinstance(field.default, int)
                    part = gr.Number(value, precision=0 if whole else None, **shown)
                note = functools.partial(_noted, name, field.name, field.default)
                part.change(note, [self.settings, part], self.settings, queue=False, **PRIVATE)

    def _show(self) -> None:
        """Lay out what the visitor sees."""
        self.shown = gr.State(None)
        self.status = gr.HTML("<p class='ul-small'>Nothing explained yet.</p>", elem_id="ul-status")
        self.opacity = gr.Slider(
            0, 1, 0.85, step=0.05, label="Opacity of the overlay", elem_id="ul-opacity"
        )
        self.maps = gr.HTML(elem_id="ul-maps")
        with gr.Accordion("The path: from the baseline to the photograph", elem_id="ul-path"):
            self.stop = gr.Slider(
                0, STOPS - 1, 0, step=1, label="Along the path (0: baseline)", elem_id="ul-stop"
            )
            self.journey = gr.HTML(elem_id="ul-journey")
        with gr.Accordion("Can I trust this?", elem_id="ul-trust-part"):
            self.trust = gr.HTML(elem_id="ul-trust")
            self.check = gr.Button(
                "Run the slower checks (insertion, deletion, noise, random weights)",
                elem_id="ul-check",
            )
            self.checks = gr.HTML(elem_id="ul-checks")
        with gr.Accordion("Take it along", open=False, elem_id="ul-take"):
            self.link = gr.Textbox(
                label="Link to this page (samples only: a photograph does not fit into a link)",
                interactive=False,
                buttons=["copy"],
                elem_id="ul-link",
            )
            self.prepare = gr.Button(
                "Prepare panel, maps, record, page and Python code", elem_id="ul-prepare"
            )
            self.files = gr.Files(label="Files", interactive=False, elem_id="ul-files")

    def _connect(self, blocks: gr.Blocks) -> None:
        """Say what happens when something is used."""
        asked = [self.photograph, self.model, self.methods, self.target, self.seed, self.settings]
        seen = [self.predictions, self.target]
        gr.on(
            [self.photograph.change, self.model.change],
            self._look,
            [self.photograph, self.model],
            seen,
            show_progress="minimal",
            **ONE_AT_A_TIME,
            **PRIVATE,
        )
        self.sample.select(  # `input` comes twice for one choice
            self._take_sample, self.sample, self.photograph, queue=False, **PRIVATE
        )
        running = self.explain.click(
            self._explain,
            asked,
            [self.shown, self.status, self.maps, self.trust, self.link],
            show_progress_on=[self.status],
            trigger_mode="once",
            **ONE_AT_A_TIME,
            **PRIVATE,
        )
        details = running.success(
            self._details,
            self.shown,
            [self.journey, self.trust, self.stop, self.checks, self.files],
            show_progress_on=[self.journey],
            **ONE_AT_A_TIME,
            **PRIVATE,
        )
        checking = self.check.click(
            self._check,
            self.shown,
            self.checks,
            show_progress_on=[self.checks],
            trigger_mode="once",
            **ONE_AT_A_TIME,
            **PRIVATE,
        )
        self.prepare.click(self._files, self.shown, self.files, **ONE_AT_A_TIME, **PRIVATE)
        self.cancel.click(
            self._cancel,
            None,
            self.status,
            queue=False,
            cancels=[running, details, checking],
            **PRIVATE,
        )
        restored = [self.photograph, *asked[1:]]
        self.restore.upload(self._restore, self.restore, restored, **PRIVATE)
        blocks.load(self._open_link, None, restored, **PRIVATE)
        blocks.unload(self._leave)
        self.opacity.input(None, self.opacity, None, js="unilens.opacity")
        self.stop.change(None, self.stop, None, js="unilens.stop")

    @plainly
    def _look(self, path: str | None, model: str) -> tuple[str, Any]:
        photograph = self._visitors.read(path)
        classifier = self.studio.classifier(model)
        labels = [(classifier.label(i), i) for i in range(len(classifier.labels))]
        if photograph is None:
            return "", gr.update(choices=[("the class predicted", -1), *labels], value=-1)
        found = self.studio.predictions(photograph, model)
        predicted = (f"the class predicted: {found[0].label}", -1)
        size = " × ".join(map(str, photograph.image.size))
        return (
            predictions_html(found, f"{photograph.name}, {size} pixels"),
            gr.update(choices=[predicted, *((one.label, one.index) for one in found), *labels]),
        )

    @plainly
    def _take_sample(self, name: str | None) -> str | None:
        return None if name is None else self._visitors.kept(sample_photograph(str(name)))

    @plainly
    def _explain(
        self,
        path: str | None,
        model: str,
        names: Sequence[str],
        target: int | None,
        seed: float,
        settings: Mapping[str, Any],
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio knows that it is wanted
    ) -> tuple[Any, ...]:
        photograph = self._visitors.read(path)
        if photograph is None:
            raise UnilensError("expected a photograph; drop one, or pick a sample")
        wanted = _wanted(model, names, target, seed, settings)
        with self.jobs.of(visitor(request), Job(report(progress))) as job:
            explained = self.studio.explain(photograph, wanted, job)
        seconds = sum(map(_seconds, explained.attributions.values()))
        return (
            (path, wanted.model_dump()),
            f"<p class='ul-small'>{len(explained.attributions)} map(s) in {seconds:.1f} s.</p>",
            maps_html(explained),
            trust_html({n: findings(a) for n, a in explained.attributions.items()}),
            "?state=" + state_of(photograph, wanted).link() if photograph.sample else "",
        )

    @plainly
    def _details(
        self,
        shown: tuple[str, Any] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple[Any, ...]:
        with self.jobs.of(visitor(request), Job(report(progress))) as job:
            explained, wanted = self._again(shown, job)
            journeys = self.studio.journeys(explained, wanted, job)
            steady = self.studio.with_stability(explained, wanted, job)
        return (
            journey_html(explained, journeys),
            trust_html({n: findings(a) for n, a in steady.items()}),
            gr.update(value=0),
            "",
            None,
        )

    @plainly
    def _check(
        self,
        shown: tuple[str, Any] | None,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> str:
        with self.jobs.of(visitor(request), Job(report(progress))) as job:
            explained, wanted = self._again(shown, job)
            return checks_html(check(self.studio.working(explained, wanted, job)))

    @plainly
    def _files(self, shown: tuple[str, Any] | None) -> list[str]:
        explained, wanted = self._again(shown, Job())
        return self._visitors.written(explained, wanted)

    def _cancel(self, request: gr.Request) -> str:
        count = self.jobs.cancel(visitor(request))
        return f"<p class='ul-small'>{'Cancelled.' if count else 'Nothing was running.'}</p>"

    def _leave(self, request: gr.Request) -> None:
        self.jobs.cancel(visitor(request))

    @plainly
    def _restore(self, file: str | None) -> tuple[Any, ...]:
        if file is None:
            raise UnilensError("expected a downloaded page, got none")
        return self._restored(read_state(self._visitors.bytes_of(file)))

    @plainly
    def _open_link(self, request: gr.Request) -> tuple[Any, ...]:
        link = request.query_params.get("state")
        if not link:
            return tuple(gr.skip() for _ in range(6))
        return self._restored(read_link(link))

    def _restored(self, state: State) -> tuple[Any, ...]:
        """Return what the parts of the page are set to."""
        wanted = state.wanted.checked(self.studio.models)
        classifier = self.studio.classifier(wanted.model)
        for one in wanted.methods:
            one.explainer(classifier)
        path: Any = gr.skip()
        if state.sample is not None:
            path = self._visitors.kept(sample_photograph(state.sample))
        elif state.picture is not None:
            path = self._visitors.kept(read_photograph(state.picture.decoded(), state.picture.name))
        return (
            path,
            wanted.model,
            [one.name for one in wanted.methods],
            -1 if wanted.target is None else wanted.target,
            wanted.seed,
            {one.name: dict(one.settings) for one in wanted.methods},
        )

    def _again(self, shown: tuple[str, Any] | None, job: Job) -> tuple[Explained, Wanted]:
        """Return what is on the page, which is kept or made again."""
        if not shown:
            raise UnilensError("expected maps on the page; press Explain first")
        photograph = self._visitors.read(shown[0])
        assert photograph is not None
        wanted = read_wanted(shown[1])
        return self.studio.explain(photograph, wanted, job), wanted


def _noted(
    method: str, name: str, default: object, settings: dict[str, Any], value: object
) -> dict[str, Any]:
    """Return the settings with one changed; what is the default need not be said."""
    own = {**settings.get(method, {}), name: value}
    if value == default:
        del own[name]
    elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        own[name] = float(value)
    return {**settings, method: own}


def _wanted(
    model: str,
    names: Sequence[str],
    target: int | None,
    seed: float,
    settings: Mapping[str, Any],
) -> Wanted:
    listed = names if isinstance(names, list) else [names]
    chosen = [
        {"name": name, "settings": settings.get(name, {}) if isinstance(name, str) else {}}
        for name in listed
    ]
    return read_asked(model, chosen, None if target == -1 else target, seed)


def _seconds(attribution: Attribution) -> float:
    seconds = attribution.provenance["seconds"]
    assert isinstance(seconds, float)
    return seconds

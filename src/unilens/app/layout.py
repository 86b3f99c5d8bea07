"""The layout of the page: its components, in two columns."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ..methods import methods
from ..models import PixelClassifier
from .handlers import PRIVATE, small
from .outdated import outdated_notice
from .panels import CHOOSE_TWO, Panels
from .request import MAX_METHODS, setting_fields
from .service import Predictions
from .thumbnails import thumbnails
from .upload import photograph_upload, unchecked
from .wording import RECOMMENDED, by_recommendation, setting_help, title_of

_MORE = (
    "<button type='button' class='ul-more' aria-controls='ul-methods' aria-expanded='false'>"
    "More methods</button>"
)
_IN_ORDER: dict[str, Any] = {"concurrency_id": "settings", "concurrency_limit": 1}
"""Through the queue: only there does gradio tell that a state has changed."""
PREDICTED = -1
"""Value of the target field for the predicted class."""


def add_header(tabs: bool) -> None:
    """Add the header of the page under construction, with or without tabs."""
    things = "a file" if tabs else "a photograph"
    gr.HTML(
        f"<header><h1>unilens</h1><p>What did the network see? Drop {things}, choose a class, "
        "compare methods, and find out which of them to trust.</p></header>",
        elem_id="ul-header",
    )


class Layout:
    """The components that explain photographs; made within `gr.Blocks`.

    Args:
        models: that the visitor can choose, by name.
        offered: names of the methods that fit the first of them.
    """

    def __init__(self, models: Sequence[str], offered: list[str]) -> None:
        with gr.Row(elem_id="ul-main"):
            with gr.Column(scale=3, min_width=300, elem_id="ul-inputs"):
                self._add_photograph()
                self._add_choices(models, offered)
            with gr.Column(scale=9, min_width=320, elem_id="ul-results", elem_classes="ul-veil"):
                self._add_outputs()
        self.form: list[Any] = [self.photograph, self.model, self.methods, self.target]
        self.form += [self.seed, self.settings]

    def _add_photograph(self) -> None:
        """Lay out the photograph, and below it what starts and ends the work."""
        self.sample = thumbnails()
        self.photograph = photograph_upload(
            label="Photograph",
            show_label=False,
            sources=["upload", "clipboard"],
            height=220,
            elem_id="ul-photograph",
            alt_text="The photograph to be explained",
        )
        with gr.Row(elem_id="ul-start"):
            self.explain = gr.Button(
                "Explain", variant="primary", elem_id="ul-explain", min_width=120, scale=2
            )
            self.cancel = gr.Button("Cancel", elem_id="ul-cancel", min_width=80)
        self.status = gr.HTML(small("Nothing explained yet."), elem_id="ul-status", min_height=0)
        self.asked = unchecked(gr.Textbox(visible="hidden", elem_id="ul-asked"))

    def _add_choices(self, models: Sequence[str], offered: list[str]) -> None:
        """Lay out model, class, methods and their settings."""
        self.model = gr.Dropdown(
            list(models),
            value=models[0],
            label="Model",
            elem_id="ul-model",
            visible=len(models) > 1,
        )
        self.predictions = gr.HTML(elem_id="ul-predictions", js_on_load=CHOOSE_TWO)
        self.target = gr.Dropdown(
            [("the class predicted", PREDICTED)],
            value=PREDICTED,
            label="Class to explain",
            elem_id="ul-target",
            filterable=True,
        )
        self.methods = gr.CheckboxGroup(
            by_recommendation(offered),
            value=[RECOMMENDED[0]],
            label=f"Methods (one to {MAX_METHODS})",
            elem_id="ul-methods",
        )
        gr.HTML(_MORE, elem_id="ul-more", min_height=0)
        self.settings = gr.State({})
        self.components = gr.State(0)
        with gr.Accordion("Settings", open=False, elem_id="ul-advanced") as accordion:
            self.seed = gr.Number(
                0,
                label="Seed",
                info="Of everything random: the same seed gives the same map.",
                precision=0,
                minimum=0,
                elem_id="ul-seed",
            )
            gr.render(
                inputs=[self.methods, self.settings],
                triggers=[
                    *(self.methods.change, accordion.expand),
                    *(self.asked.change, self.components.change),
                ],
                queue=False,
            )(self._render_settings)
        for component in (self.model, self.target, self.methods, self.seed):
            unchecked(component)
        self.restore = gr.UploadButton(
            "Open a downloaded page", file_types=[".json"], size="sm", elem_id="ul-restore"
        )

    def _render_settings(self, names: Sequence[str], chosen: Mapping[str, Any]) -> None:
        listed = names if isinstance(names, list) else []
        for name in [name for name in listed if isinstance(name, str) and name in methods]:
            settings = dict(chosen.get(name, {}))
            card = methods[name].card
            gr.Markdown(f"**{title_of(name)}** (`{name}`): {card.summary}. {card.reference}")
            for field in setting_fields(name, settings):
                value = settings.get(field.name, field.default)
                look: dict[str, Any] = {"label": field.name.replace("_", " "), "interactive": True}
                look["info"] = setting_help(name, field, settings)
                component: Any
                if field.choices:
                    component = gr.Dropdown(list(field.choices), value=value, **look)
                elif isinstance(field.default, bool):
                    component = gr.Checkbox(bool(value), **look)
                else:
                    precision = 0 if isinstance(field.default, int) else None
                    component = gr.Number(value, precision=precision, **look)
                change = functools.partial(_with_setting, name, field.name, field.default)
                state = [self.settings, self.components]
                component.change(
                    functools.partial(change, is_component=bool(field.choices)),
                    [*state, component],
                    state,
                    show_progress="hidden",
                    **_IN_ORDER,
                    **PRIVATE,
                )

    def _add_outputs(self) -> None:
        """Lay out what the visitor sees."""
        self.shown = gr.State(None)
        self.outdated = outdated_notice("ul-outdated")
        self.maps = gr.HTML(elem_id="ul-maps", min_height=120)
        self.opacity = gr.Slider(
            0, 1, 0.85, step=0.05, label="Opacity of the overlay", elem_id="ul-opacity"
        )
        self.panels = Panels()
        with gr.Accordion("The path: from the baseline to the photograph", elem_id="ul-path"):
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


def class_choices(
    classifier: PixelClassifier, predictions: Predictions | None = None
) -> list[tuple[str, int]]:
    """Return the classes that can be explained: the predicted one, the most probable, all others.

    Args:
        classifier: whose classes they are.
        predictions: for the photograph; None where there is none.
    """
    if predictions is None:
        count = 0 if classifier.single_output else len(classifier.labels)
        first, likely = "the class predicted", []
    else:
        count = predictions.count
        likely = [(prediction["label"], prediction["index"]) for prediction in predictions.top]
        first = f"{predictions.noun}: {likely[0][0]}"
    if count == 1:
        return [(first, PREDICTED)]
    known = {index for _, index in likely}
    others = [(classifier.label(index), index) for index in range(count) if index not in known]
    return [(first, PREDICTED), *likely, *others]


def _with_setting(
    method: str,
    name: str,
    default: object,
    settings: dict[str, Any],
    components: int,
    value: object,
    *,
    is_component: bool,
) -> tuple[dict[str, Any], int]:
    """Return the settings with one changed, and how often a component was chosen.

    A default is left out. A component brings settings of its own, so that they are drawn again.
    """
    changed = {**settings.get(method, {}), name: value}
    if value == default:
        del changed[name]
    elif isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        changed[name] = float(value)
    is_new = is_component and changed != settings.get(method, {})
    return {**settings, method: changed}, components + is_new

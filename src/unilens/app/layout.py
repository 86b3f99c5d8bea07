"""The layout of the page: its components, in two columns."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from ..methods import methods
from ..methods.defaults import SHOWN_BY_DEFAULT
from ..models import samples
from .handlers import PRIVATE
from .panels import CHOOSE_TWO, Panels
from .photograph import MAX_BYTES
from .request import MAX_METHODS, setting_fields
from .upload import photograph_upload, unchecked

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
    """

    def __init__(self, models: Sequence[str]) -> None:
        with gr.Row(elem_id="ul-main"):
            with gr.Column(scale=3, min_width=300):
                self._add_inputs(models)
            with gr.Column(scale=9, min_width=320):
                self._add_outputs()

    def _add_inputs(self, models: Sequence[str]) -> None:
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
        self.methods = gr.Dropdown(
            [(f"{name}: {entry.card.summary}", name) for name, entry in methods.items()],
            value=list(SHOWN_BY_DEFAULT),
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
        self.form: list[Any] = [self.photograph, self.model, self.methods, self.target]
        self.form += [self.seed, self.settings]
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
        self.status = gr.HTML("<p class='ul-small'>Nothing explained yet.</p>", elem_id="ul-status")
        self.opacity = gr.Slider(
            0, 1, 0.85, step=0.05, label="Opacity of the overlay", elem_id="ul-opacity"
        )
        self.maps = gr.HTML(elem_id="ul-maps")
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

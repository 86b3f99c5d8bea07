"""The samples as pictures to press."""

from __future__ import annotations

import functools
from typing import Any

import gradio as gr
import numpy
from PIL import Image, ImageOps

from ..models import samples
from ..output.viz import data_uri
from .render import html_of
from .upload import unchecked

_SIDE = 112
_PRESSED = """
const mark = () => {
  for (const button of element.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.sample === props.value);
  }
};
watch("value", mark);
element.addEventListener("click", event => {
  const button = event.target.closest("button[data-sample]");
  if (!button) return;
  props.value = button.dataset.sample;
  mark();
  trigger("select");
});
"""


def thumbnails() -> Any:
    """Return a component of a button for each sample; its value is the name of the one pressed."""
    return unchecked(
        gr.HTML(html_template=_buttons(), js_on_load=_PRESSED, elem_id="ul-sample", min_height=0)
    )


@functools.cache
def _buttons() -> str:
    pictures = {name: _thumbnail(entry()) for name, entry in samples.items()}
    summaries = {name: entry.card.summary for name, entry in samples.items()}
    return html_of("samples.html", pictures=pictures, summaries=summaries)


def _thumbnail(image: Image.Image) -> str:
    small = ImageOps.fit(image.convert("RGB"), (_SIDE, _SIDE))
    return data_uri(numpy.asarray(small) / 255, "webp", quality=75, method=4)

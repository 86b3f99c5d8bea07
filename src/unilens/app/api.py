"""The same work over HTTP, for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import UnilensError
from ..output.records import record
from ..output.text import printable
from .checks import check
from .files import Files
from .handlers import ONE_AT_A_TIME, plainly
from .jobs import Job
from .photograph import Photograph
from .studio import Studio
from .upload import as_given, upload
from .wanted import Wanted, read_asked


def offer(studio: Studio, visitors: Files) -> None:
    """Add the endpoints /predict, /explain and /check to a page that is being built."""

    @plainly
    def predict(image: str | None, model: str) -> list[dict[str, Any]]:
        """Return the five most probable classes of a photograph."""
        found = studio.predictions(_photograph(visitors, image), model or studio.models[0])
        return [vars(one) for one in found]

    @plainly
    def explain(
        image: str | None, methods: Any, model: str, target: float | None, seed: float | None
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the record of a photograph's maps, and the files with them."""
        photograph, wanted = (
            _photograph(visitors, image),
            _asked(studio, methods, model, target, seed),
        )
        explained = studio.explain(photograph, wanted, Job())
        name = printable(photograph.name)
        return (
            record(name, explained.model, explained.attributions, explained.left_out),
            visitors.written(explained, wanted),
        )

    @plainly
    def checks(
        image: str | None, methods: Any, model: str, target: float | None, seed: float | None
    ) -> dict[str, Any]:
        """Return the slower checks of a photograph's maps."""
        wanted, job = _asked(studio, methods, model, target, seed), Job()
        explained = studio.explain(_photograph(visitors, image), wanted, job)
        found = check(studio.working(explained, wanted, job))
        return {
            name: {
                "areas": {metric: curve.area for metric, curve in one.curves.items()},
                "findings": [vars(finding) for finding in one.findings],
            }
            for name, one in found.items()
        }

    with gr.Row(visible=False):
        image, model = upload(label="image"), as_given(gr.Textbox("", label="model"))
        methods = gr.JSON(["uni"], label="methods")
        target = as_given(gr.Number(None, label="target", precision=0))
        seed = as_given(gr.Number(0, label="seed", precision=0))
        found, files, button = gr.JSON(label="found"), gr.Files(label="files"), gr.Button()
    asked = [image, methods, model, target, seed]
    button.click(predict, [image, model], found, api_name="predict", **ONE_AT_A_TIME)
    button.click(explain, asked, [found, files], api_name="explain", **ONE_AT_A_TIME)
    button.click(checks, asked, found, api_name="check", **ONE_AT_A_TIME)


def _photograph(visitors: Files, path: str | None) -> Photograph:
    found = visitors.read(path)
    if found is None:
        raise UnilensError("expected an image, got none; pass image=handle_file('cat.jpg')")
    return found


def _asked(
    studio: Studio, methods: Any, model: str, target: float | None, seed: float | None
) -> Wanted:
    listed = methods if isinstance(methods, list) else [methods]
    chosen = [{"name": one} if isinstance(one, str) else one for one in listed]
    return read_asked(model or studio.models[0], chosen, target, seed)

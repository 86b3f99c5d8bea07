"""The same work over HTTP, for programs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ..errors import UnilensError
from ..methods.defaults import SHOWN_BY_DEFAULT
from .checks import run_checks
from .files import VisitorFiles, explanation_record
from .handlers import ONE_AT_A_TIME, visitor_id, with_short_errors
from .jobs import Job, Jobs
from .request import read_form
from .service import ExplainService, Explanation
from .upload import photograph_upload, unchecked


def add_endpoints(service: ExplainService, files: VisitorFiles, jobs: Jobs) -> None:
    """Add the endpoints /predict, /explain and /check to the page under construction."""

    def explanation_of(
        image: str | None,
        methods: Any,
        model: str,
        target: float | None,
        seed: float | None,
        job: Job,
    ) -> Explanation:
        photograph = files.read(_required(image))
        names = methods if isinstance(methods, list) else [methods]
        chosen = [{"name": name} if isinstance(name, str) else name for name in names]
        request = read_form(model or service.models[0], chosen, target, seed)
        return service.explain(photograph, request, job)

    @with_short_errors
    def predict(image: str | None, model: str) -> list[dict[str, Any]]:
        """Return the five most probable classes of a photograph."""
        photograph = files.read(_required(image))
        return service.predictions(photograph, model or service.models[0]).top

    @with_short_errors
    def explain(
        image: str | None,
        methods: Any,
        model: str,
        target: float | None,
        seed: float | None,
        request: gr.Request,
    ) -> tuple[dict[str, Any], list[str]]:
        """Return the record of a photograph's maps, and the files with them."""
        with jobs.track(visitor_id(request), Job()) as job:
            explanation = explanation_of(image, methods, model, target, seed, job)
        paths = files.write_downloads(explanation, visitor_id(request))
        return explanation_record(explanation), paths

    @with_short_errors
    def check(
        image: str | None,
        methods: Any,
        model: str,
        target: float | None,
        seed: float | None,
        request: gr.Request,
    ) -> dict[str, Any]:
        """Return the slower checks of a photograph's maps."""
        with jobs.track(visitor_id(request), Job()) as job:
            explanation = explanation_of(image, methods, model, target, seed, job)
            checks = run_checks(service, explanation, job)
        return {
            name: {
                "areas": {
                    metric: float(curve.values[0]) for metric, curve in result.curves.items()
                },
                "answers": [vars(answer) for answer in result.answers],
            }
            for name, result in checks.items()
        }

    with gr.Row(visible=False):
        image, model = photograph_upload(label="image"), unchecked(gr.Textbox("", label="model"))
        methods = gr.JSON(list(SHOWN_BY_DEFAULT), label="methods")
        target = unchecked(gr.Number(None, label="target", precision=0))
        seed = unchecked(gr.Number(0, label="seed", precision=0))
        result, paths, button = gr.JSON(label="result"), gr.Files(label="files"), gr.Button()
    inputs = [image, methods, model, target, seed]
    button.click(predict, [image, model], result, api_name="predict", **ONE_AT_A_TIME)
    button.click(explain, inputs, [result, paths], api_name="explain", **ONE_AT_A_TIME)
    button.click(check, inputs, result, api_name="check", **ONE_AT_A_TIME)


def _required(image: str | None) -> str:
    if image is None:
        raise UnilensError("expected an image, got none; pass image=handle_file('cat.jpg')")
    return image

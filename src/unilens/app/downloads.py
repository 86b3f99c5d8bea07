"""What a visitor can download: figure, raw maps, record, page state, and Python code."""

from __future__ import annotations

import base64
from pathlib import Path

from ..methods import methods
from ..models.loading import RANDOM_WEIGHTS
from ..output.records import record, write, write_text
from ..output.text import printable
from .photograph import Photograph
from .request import ExplainRequest, MethodRequest, PageState, PhotographFile
from .service import Explanation

SUFFIXES = (".png", ".safetensors", ".json", ".py", "-page.json")


def write_downloads(folder: Path, explanation: Explanation) -> list[Path]:
    """Write everything about an explanation into a folder, and return the files."""
    photograph, maps = explanation.photograph, explanation.attributions
    path = folder / f"{photograph.stem}-unilens"
    write(path, explanation.pixels, maps, explanation_record(explanation), "signed")
    write_text(path, ".py", python_code(explanation))
    write_text(path, "-page.json", page_state(photograph, explanation.request).text())
    return [folder / (path.name + suffix) for suffix in SUFFIXES]


def explanation_record(explanation: Explanation) -> dict[str, object]:
    """Return everything about an explanation as plain data."""
    name = printable(explanation.photograph.name)
    return record(name, explanation.model, explanation.attributions, explanation.left_out)


def page_state(photograph: Photograph, request: ExplainRequest) -> PageState:
    """Return the state that restores the page, with the photograph unless it is a sample."""
    if photograph.sample:
        return PageState(request=request, sample=photograph.sample)
    data = base64.b64encode(photograph.data).decode()
    file = PhotographFile(name=printable(photograph.name), data=data)
    return PageState(request=request, photograph=file)


def python_code(explanation: Explanation) -> str:
    """Return the lines of Python that make the same maps."""
    photograph, request = explanation.photograph, explanation.request
    sample, file = photograph.sample, printable(photograph.name)
    image = f"samples[{sample!r}]()" if sample else f"read_image({file!r})"
    untrained = ", pretrained=False" if explanation.model.origin == RANDOM_WEIGHTS else ""
    lines = [
        "from unilens import explain, load_model",
        f"from unilens.models import {'samples' if sample else 'read_image'}",
        "from unilens.output.viz import panel",
        "",
        f"model = load_model({request.model!r}{untrained})",
        f"image = model.preprocess({image})",
    ]
    arguments = {
        method.name: _arguments(method)
        for method in request.methods
        if method.name in explanation.attributions
    }
    if any("references" in text for text in arguments.values()):
        lines[0:0] = ["import torch"]
        lines[2] = "from unilens.models import read_image, samples"
        images = "model.preprocess(load()) for load in samples.values()"
        lines.append(f"references = torch.stack([{images}])")
    lines.append("maps = {")
    lines += [
        f"    {name!r}: explain(model, image[None], {name!r}, {explanation.target}, "
        f"seed={request.seed}{text}),"
        for name, text in arguments.items()
    ]
    lines += ["}", f"panel(image, maps).savefig({photograph.stem + '-unilens.png'!r})"]
    return "\n".join(lines) + "\n"


def _arguments(method: MethodRequest) -> str:
    """Return the settings of a method as further arguments of a call."""
    text = "".join(f", {name}={value!r}" for name, value in method.settings.items())
    needs_references = "references" in methods[method.name].settings_with(method.settings)
    return text + ", references=references" * needs_references

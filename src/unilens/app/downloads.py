"""What a visitor takes along: the panel, the raw maps, the record, the page, and the code."""

from __future__ import annotations

import base64
from pathlib import Path

from ..models.loading import RANDOM_WEIGHTS
from ..output.records import record, write, write_text
from ..output.text import printable
from .photograph import Photograph
from .studio import Explained
from .wanted import Chosen, Picture, State, Wanted


def write_files(folder: Path, explained: Explained, wanted: Wanted) -> list[Path]:
    """Write everything about some maps into a folder, and return the files."""
    photograph = explained.photograph
    path = folder / f"{photograph.stem}-unilens"
    recorded = record(
        printable(photograph.name), explained.model, explained.attributions, explained.left_out
    )
    write(path, explained.pixels, explained.attributions, recorded, "signed")
    write_text(path, ".py", snippet(explained, wanted))
    write_text(path, "-page.json", state_of(photograph, wanted).text())
    suffixes = (".png", ".safetensors", ".json", ".py", "-page.json")
    return [folder / (path.name + suffix) for suffix in suffixes]


def state_of(photograph: Photograph, wanted: Wanted) -> State:
    """Return what restores the page, with the photograph inside where it is no sample."""
    if photograph.sample:
        return State(wanted=wanted, sample=photograph.sample)
    data = base64.b64encode(photograph.data).decode()
    return State(wanted=wanted, picture=Picture(name=printable(photograph.name), data=data))


def snippet(explained: Explained, wanted: Wanted) -> str:
    """Return the lines of Python that make the same maps."""
    photograph, made = explained.photograph, explained.attributions
    sample, file = photograph.sample, printable(photograph.name)
    image = f"samples[{sample!r}]()" if sample else f"read_image({file!r})"
    untrained = ", pretrained=False" if explained.model.origin == RANDOM_WEIGHTS else ""
    lines = [
        "from unilens import explain, load_model",
        f"from unilens.models import {'samples' if sample else 'read_image'}",
        "from unilens.output.viz import panel",
        "",
        f"model = load_model({wanted.model!r}{untrained})",
        f"image = model.preprocess({image})",
    ]
    settings = {one.name: _settings(one, explained) for one in wanted.methods if one.name in made}
    if any("references" in one for one in settings.values()):
        lines[0:0] = ["import torch"]
        lines[2] = "from unilens.models import read_image, samples"
        every = "model.preprocess(load()) for load in samples.values()"
        lines.append(f"references = torch.stack([{every}])")
    lines.append("maps = {")
    for name, given in settings.items():
        call = (
            f"explain(model, image[None], {name!r}, {explained.target}, seed={wanted.seed}{given})"
        )
        lines.append(f"    {name!r}: {call},")
    lines += ["}", f"panel(image, maps).savefig({photograph.stem + '-unilens.png'!r})"]
    return "\n".join(lines) + "\n"


def _settings(chosen: Chosen, explained: Explained) -> str:
    """Return the settings of a method as further arguments of a call."""
    said = "".join(f", {name}={value!r}" for name, value in chosen.settings.items())
    references = getattr(explained.explainers[chosen.name], "references", None)
    return said if references is None else said + ", references=references"

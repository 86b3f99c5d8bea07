"""Files of an explanation: a JSON record, the raw maps, and a figure."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from .._ops.files import write_whole
from ..attribution import Attribution
from ..diagnostics import WARNINGS
from ..errors import UnilensError
from ..models import PixelClassifier
from ..models.labels import Labelled
from ..outputs import OutputSpec
from .text import probability_text

SCHEMA = 2
_MAX_NAME_BYTES = 160
"""Of an input's name in file names: file systems allow 255 with suffixes and numbers."""
_ROWS = 6
"""Methods that a panel shows in full; more are shown as columns."""
_DPI = 200
_COMPRESSION = 2
"""Of PNG, from 0 to 9: with the usual 6 it takes as long as drawing, for files a fifth smaller."""
_TOP = 5
"""Most probable classes that a record lists."""
SUFFIXES = (".png", ".safetensors", ".json")


def record(
    source: str,
    model: PixelClassifier,
    attributions: Mapping[str, Attribution],
    left_out: Mapping[str, str] | None = None,
    index: int = 0,
) -> dict[str, Any]:
    """Return everything about one image's explanations as plain data.

    Args:
        source: path of the image, or name of the sample.
        model: the explained classifier.
        attributions: maps by method.
        left_out: why other methods gave no map, by method.
        index: index of the input in the attributions.
    """
    first = next(iter(attributions.values()))
    outputs = first.outputs[index]
    probabilities = OutputSpec.of(first.provenance).probabilities(outputs)
    target = int(first.target[index])
    return {
        "schema": SCHEMA,
        "source": source,
        "model": of_model(model),
        "target": {"index": target, "label": model.label(target)},
        "confidence": number(first.confidence[index]),
        "predictions": predictions(
            model, probabilities, outputs.topk(min(_TOP, outputs.numel())).indices.tolist()
        ),
        "methods": {
            name: of_method(attribution, index) for name, attribution in attributions.items()
        },
        "left_out": dict(left_out or {}),
    }


def predictions(
    model: Labelled, probabilities: Tensor, indices: Iterable[int] | None = None
) -> list[dict[str, Any]]:
    """Return classes with their probabilities as plain data; None for all classes in order."""
    return [
        {"index": index, "label": model.label(index), "probability": number(probabilities[index])}
        for index in (range(len(probabilities)) if indices is None else indices)
    ]


def of_model(model: PixelClassifier) -> dict[str, Any]:
    """Return a model's name, origin and preprocessing as plain data."""
    return {
        "name": model.name,
        "origin": model.origin,
        "size": list(model.preprocessing.size),
        "resize": model.preprocessing.resize,
        "interpolation": model.preprocessing.interpolation,
        "transform": _class_name(model.preprocessing.transform),
        "mean": list(model.preprocessing.mean),
        "std": list(model.preprocessing.std),
    }


def _class_name(transform: object) -> str | None:
    """Return the name of another library's preprocessing class."""
    return None if transform is None else type(getattr(transform, "processor", transform)).__name__


def of_method(attribution: Attribution, index: int = 0) -> dict[str, Any]:
    """Return the explanation of one input, with its diagnostics, as plain data."""
    trace, baseline_score = attribution.trace, attribution.baseline_score
    warnings = attribution.warnings[index]
    return {
        "score": number(attribution.score[index]),
        "baseline_score": None if baseline_score is None else number(baseline_score[index]),
        "diagnostics": {
            name: number(values[index]) for name, values in attribution.diagnostics.items()
        },
        "verdict": attribution.verdicts[index],
        "warnings": warnings,
        "levels": {name: WARNINGS[name].level for name in warnings},
        "path": None
        if trace is None
        else {
            "fraction": numbers(trace.fraction[:, index]),
            "score": numbers(trace.score[:, index]),
            "confidence": numbers(trace.confidence[:, index]),
        },
        "record": {name: numbers(values[index]) for name, values in attribution.record.items()},
        **attribution.provenance,
    }


def number(value: Tensor) -> float | None:
    """Return a scalar, or None if it is not finite: JSON has no other numbers."""
    number = float(value.detach())
    return number if math.isfinite(number) else None


def numbers(values: Tensor) -> list[float | None]:
    """Return all values of a tensor, flattened, as JSON knows them."""
    return [number(value) for value in values.flatten()]


def free_paths(
    folder: Path,
    names: Sequence[str],
    overwrite: bool,
    suffixes: Sequence[str] = SUFFIXES,
    *,
    numbered: bool = False,
) -> list[Path]:
    """Return the path, without suffix, of each name's files.

    Args:
        folder: created where it is missing.
        names: of inputs; those that occur twice are numbered.
        overwrite: whether existing files are replaced.
        suffixes: of each name's files.
        numbered: whether a name whose files exist gets a number, in place of an error.

    Raises:
        UnilensError: the folder cannot be written, or a file exists and `overwrite` is false.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UnilensError(
            f"expected an output folder that can be written, got {folder}: {error.strerror}; "
            "choose another with --out"
        ) from error

    def exists(stem: str) -> Path | None:
        paths = (folder / (stem + suffix) for suffix in suffixes)
        return None if overwrite else next((path for path in paths if path.exists()), None)

    stems = _distinct(names, exists if numbered else lambda stem: None)
    for path in filter(None, map(exists, stems)):
        raise UnilensError(
            f"{path} exists already; choose another folder with --out, or replace it with "
            "--overwrite"
        )
    return [folder / stem for stem in stems]


def _distinct(names: Sequence[str], is_taken: Callable[[str], object]) -> list[str]:
    stems: list[str] = []
    for name in names:
        short = os.fsdecode(os.fsencode(name)[:_MAX_NAME_BYTES])
        stem, number = short, 2
        while stem in stems or is_taken(stem):
            stem, number = f"{short}-{number}", number + 1
        stems.append(stem)
    return stems


def write(
    path: Path,
    image: Tensor,
    attributions: Mapping[str, Attribution],
    content: Mapping[str, Any],
    style: str,
    index: int = 0,
) -> None:
    """Write `<path>.png`, `.safetensors` and `.json`, each complete or not at all.

    The tensors `(C, H, W)` have the names `METHOD/values`, `METHOD/baseline` and `image`.
    """
    from .viz import comparison, panel

    confidence = content["confidence"]
    probability = "" if confidence is None else f", probability {probability_text(confidence)}"
    title = f"{Path(content['source']).stem}: why “{content['target']['label']}”{probability}?"
    draw = panel if len(attributions) <= _ROWS else comparison
    figure = draw(image, attributions, title=title, style=style, index=index)
    options: dict[str, Any] = {
        "format": "png",
        "dpi": _DPI,
        "pil_kwargs": {"compress_level": _COMPRESSION},
    }
    write_whole(path, ".png", lambda name: figure.savefig(name, **options))
    maps = {"image": image.detach().cpu().contiguous()}
    for name, attribution in attributions.items():
        maps[f"{name}/values"] = attribution.values[index].cpu().contiguous()
        if attribution.baseline is not None:
            maps[f"{name}/baseline"] = attribution.baseline[index].cpu().contiguous()
    write_whole(path, ".safetensors", lambda name: save_file(maps, name))
    write_json(path, content)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `<path>.json`, complete or not at all."""
    write_text(path, ".json", json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, suffix: str, text: str) -> None:
    """Write a text to `<path><suffix>`, complete or not at all."""
    data = text.encode("utf-8", "replace")
    write_whole(path, suffix, lambda name: Path(name).write_bytes(data))

"""Methods, metrics and their settings as text: `ig:baseline=blur,sigma=10`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .errors import UnknownNameError, require
from .explainer import Explainer
from .methods import methods
from .models import PixelClassifier, samples
from .models.images import open_image
from .registry import Registry


@dataclass(frozen=True)
class Spec:
    """A registered thing and its settings, as the command line gives them."""

    name: str
    settings: Mapping[str, Any]


def read_specs(
    registry: Registry[Any], given: list[str], shared: Mapping[str, Any] | None = None
) -> dict[str, Spec]:
    """Return things by what they are called on the command line, settings checked.

    Args:
        registry: of the things.
        given: each `NAME` or `NAME:key=value,key=value`.
        shared: settings for every one of them that has this setting.
    """
    specs: dict[str, Spec] = {}
    used: set[str] = set()
    shared = shared or {}
    for text in given:
        name, _, tail = text.partition(":")
        own = read_settings(re.split(r",(?![^\[]*\])", tail) if tail else [])
        valid = set(registry[name].settings_with({**shared, **own}))
        used |= valid & set(shared)
        mine = {key: value for key, value in shared.items() if key in valid}
        specs[text] = Spec(name, {**mine, **own})
    for key in shared:
        if key not in used:
            known = {name for spec in specs.values() for name in registry[spec.name].settings}
            raise UnknownNameError(f"setting of {', '.join(specs)}", key, sorted(known))
    return specs


def split_specs(given: list[str]) -> list[str]:
    """Split texts such as `uni,ig:baseline=blur,sigma=10,gradient` into one per thing.

    What follows a comma is a setting of the thing before it where it has the form `key=value`.
    """
    parts = [part for text in given for part in re.split(r",(?![^\[]*\])", text)]
    specs: list[str] = []
    for part in parts:
        setting = "=" in part and ":" not in part.partition("=")[0]
        if setting and specs and ":" in specs[-1]:
            specs[-1] += f",{part}"
        else:
            specs.append(part.strip())
    return [one for one in specs if one]


def build_method(
    spec: Spec, classifier: PixelClassifier, value_range: tuple[float, float] | None = None
) -> Explainer:
    """Build a method; `references` may be an image, a folder of images, `samples` or a list.

    `samples` are the photographs that come with installed packages; a list names some of them.
    `value_range` is that of files, as for `read_image`.
    """
    settings = dict(spec.settings)
    references = settings.get("references")
    if isinstance(references, (str, list)):
        images = _referred(references, value_range)
        settings["references"] = torch.stack([classifier.preprocess(image) for image in images])
    return methods[spec.name](**settings)


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """Read settings given as `key=value`: what is no JSON is text, `[a,b]` a list."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        require(bool(equals and key), f"expected a setting as key=value, got {pair!r}")
        require(key.strip() not in settings, f"expected each setting once, got {key.strip()} twice")
        try:
            settings[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            listed = value.startswith("[") and value.endswith("]")
            settings[key.strip()] = value[1:-1].split(",") if listed else value
    return settings


def _referred(
    references: str | list[str], value_range: tuple[float, float] | None
) -> list[Image.Image]:
    if isinstance(references, list):
        require(bool(references), "expected references to name photographs, got an empty list")
        return [samples[name]() for name in references]
    if references == "samples":
        return [load() for load in samples.values()]
    return _read_folder(Path(references), value_range)


def _read_folder(path: Path, value_range: tuple[float, float] | None) -> list[Image.Image]:
    """Return an image, or all images of a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    known = Image.registered_extensions()
    wanted = [file for file in files if file.suffix.lower() in known]
    require(bool(wanted), f"expected references to be an image or a folder of images, got {path}")
    return [open_image(file, value_range=value_range) for file in wanted]

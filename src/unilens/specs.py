"""Methods and their settings as text: `ig:baseline=blur,sigma=10`, and `key=value`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .attribution import Explainer
from .errors import UnknownNameError, require
from .methods import methods
from .models import PixelClassifier, read_image


@dataclass(frozen=True)
class Spec:
    """A method and its settings, as the command line gives them."""

    method: str
    settings: Mapping[str, Any]

    @property
    def provenance(self) -> dict[str, object]:
        """What is recorded: the name, and the settings as they were given."""
        return {"method": self.method, "given": dict(self.settings)}

    def build(self, classifier: PixelClassifier) -> Explainer:
        """Build the method; `references` may be the path of an image or a folder of images."""
        settings = dict(self.settings)
        references = settings.get("references")
        if isinstance(references, str):
            settings["references"] = _read_folder(Path(references), classifier)
        return methods[self.method](**settings)


def read_specs(given: list[str], shared: Mapping[str, Any]) -> dict[str, Spec]:
    """Return the methods by what they are called on the command line, settings checked."""
    specs: dict[str, Spec] = {}
    used: set[str] = set()
    for text in given:
        name, _, tail = text.partition(":")
        own = read_settings(re.split(r",(?![^\[]*\])", tail) if tail else [])
        valid = set(methods[name].settings_with({**shared, **own}))
        used |= valid & set(shared)
        mine = {key: value for key, value in shared.items() if key in valid}
        specs[text] = Spec(name, {**mine, **own})
    for key in shared:
        if key not in used:
            known = {name for spec in specs.values() for name in methods[spec.method].settings}
            raise UnknownNameError(f"setting of {', '.join(specs)}", key, sorted(known))
    return specs


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """Read settings given as `key=value`: values that are no JSON are text."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        require(bool(equals and key), f"expected a setting as key=value, got {pair!r}")
        try:
            settings[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            settings[key.strip()] = value
    return settings


def _read_folder(path: Path, classifier: PixelClassifier) -> Tensor:
    """Return an image, or all images of a folder, as the model's pixels `(R, 3, H, W)`."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    known = Image.registered_extensions()
    wanted = [file for file in files if file.suffix.lower() in known]
    require(bool(wanted), f"expected references to be an image or a folder of images, got {path}")
    return torch.stack([classifier.preprocess(read_image(file)) for file in wanted])

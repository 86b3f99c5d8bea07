"""Methods and metrics with their settings, read from text: `ig:baseline=blur,sigma=10`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UnilensError, UnknownNameError, require
from .registry import Registry, check_known

if TYPE_CHECKING:
    from PIL import Image

    from .explainer import Method
    from .models import PixelClassifier


STUBS = ("BUFR", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow knows by name but does not read."""


@dataclass(frozen=True)
class Spec:
    """The name of a registered component and its settings."""

    name: str
    settings: Mapping[str, Any]


def read_specs(
    registry: Registry[Any], given: list[str], shared: Mapping[str, Any] | None = None
) -> dict[str, Spec]:
    """Return components with checked settings, by the text that describes them.

    Args:
        registry: registry of the components.
        given: texts, each `NAME` or `NAME:key=value,key=value`.
        shared: settings for every component that has this setting.

    Raises:
        UnknownNameError: a name or setting is unknown, or no component has a shared setting.
            Hyphens and underscores are alike in both.
    """
    specs: dict[str, Spec] = {}
    used: set[str] = set()
    shared = shared or {}
    for text in given:
        name, _, tail = text.partition(":")
        entry = registry[name]
        own = read_settings(_split_commas(tail) if tail else [])
        valid = entry.settings_with({**shared, **own})
        check_known(entry.card.name, own, valid)
        used |= set(valid) & set(shared)
        common = {key: value for key, value in shared.items() if key in valid}
        specs[text] = Spec(entry.card.name, {**common, **own})
    for key in shared:
        if key not in used:
            known = {name for spec in specs.values() for name in registry[spec.name].settings}
            raise UnknownNameError(f"setting of {', '.join(specs)}", key, sorted(known))
    return specs


def split_specs(given: list[str]) -> list[str]:
    """Split texts such as `uni,ig:baseline=blur,sigma=10,gradient` into one per component.

    Text of the form `key=value` after a comma is a setting of the component before it.
    """
    specs: list[str] = []
    for item in [item for text in given for item in _split_commas(text)]:
        is_setting = "=" in item and ":" not in item.partition("=")[0]
        if is_setting and specs and ":" in specs[-1]:
            specs[-1] += f",{item}"
        else:
            specs.append(item.strip())
    return [spec for spec in specs if spec]


def build_method(
    spec: Spec, classifier: PixelClassifier, value_range: tuple[float, float] | None = None
) -> Method:
    """Build a method; `references` may be an image, a folder of images, `samples` or a list.

    Args:
        spec: name and settings of the method; `samples` stands for the photographs that come with
            installed packages, and a list names some of them.
        classifier: preprocesses the references.
        value_range: pixel values of black and white in image files, as for `read_image`.
    """
    import torch

    from .methods import methods

    settings = dict(spec.settings)
    references = settings.get("references")
    if isinstance(references, (str, list)):
        images = _read_references(references, value_range)
        settings["references"] = torch.stack([classifier.preprocess(image) for image in images])
    return methods[spec.name](**settings)


def _split_commas(text: str) -> list[str]:
    """Split a text at the commas outside brackets."""
    return re.split(r",(?![^\[]*\])", text)


def read_settings(pairs: list[str]) -> dict[str, Any]:
    """Read settings from texts `key=value`: a JSON value, `[a,b]` as a list of texts, or a text."""
    settings: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        require(bool(equals and key), f"expected a setting as key=value, got {pair!r}")
        require(key not in settings, f"expected each setting once, got {key} twice")
        try:
            settings[key] = json.loads(value)
        except RecursionError:
            raise UnilensError(f"expected {key} to be plain, got a deeply nested value") from None
        except ValueError:  # no JSON, or a number of thousands of digits
            listed = value.startswith("[") and value.endswith("]")
            settings[key] = value[1:-1].split(",") if listed else value
    return settings


def _read_references(
    references: str | list[str], value_range: tuple[float, float] | None
) -> list[Image.Image]:
    from .models import samples

    if isinstance(references, list):
        require(bool(references), "expected references to name photographs, got an empty list")
        return [samples[name]() for name in references]
    if references == "samples":
        return [load() for load in samples.values()]
    return _read_folder(Path(references), value_range)


def _read_folder(path: Path, value_range: tuple[float, float] | None) -> list[Image.Image]:
    """Return the image at a path, or all images of a folder in alphabetical order."""
    from .models.images import open_image

    images = images_in(path) if path.is_dir() else [path]
    require(
        bool(images) and images[0].is_file(),
        f"expected references to be an image or a folder of images, got {path}",
    )
    return [open_image(file, value_range=value_range) for file in images]


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, by their endings, in alphabetical order."""
    from PIL import Image

    endings = {
        ending
        for ending, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in STUBS
    }
    return [file for file in sorted(folder.iterdir()) if file.suffix.lower() in endings]

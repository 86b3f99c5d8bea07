"""Data sets of torchvision."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import UnilensError, UnknownNameError, require
from ...models import read_image
from .items import Item, index_of, numbered_names, read_settings
from .labels import as_label

DEFAULT_ROOT = "data"
_SPLITS = ("val", "test", "train")
"""The default split is the first of these that the data set has."""
_WHOLE = "all"
_PICKLED = ("LSUN", "LSUNClass")
"""Data sets that unpickle files without a checksum."""


@dataclass(frozen=True, slots=True)
class _TorchvisionSet:
    """A data set of torchvision.

    Attributes:
        name: of its class in `torchvision.datasets`.
        settings: of its builder, as JSON.
    """

    name: str
    settings: str

    def load(self, name: str) -> Image.Image:
        """Read the image of that name as upright RGB."""
        source = f"torchvision:{self.name} {name}"
        data = _opened(self)
        try:
            image = data[index_of(name)][0]
        except Exception as error:  # loaders raise anything on broken files
            raise UnilensError(f"could not read {source}: {error}; is the file whole?") from error
        if not isinstance(image, Image.Image):
            raise UnilensError(f"expected an image, got {type(image).__name__}: {source}")
        return read_image(image, source)


def list_torchvision(
    text: str, *, split: str | None = None, limit: int | None = None, by_index: bool = False
) -> list[Item]:
    """Return the images of `NAME` or `NAME?root=FOLDER`; see `open_source`."""
    name, settings = read_settings(text)
    download = settings.pop("download", False)
    require(
        not download,
        f"expected torchvision:{name} without download, since nothing is downloaded here, got "
        f"download={download!r}; {_remedy(name, settings)}",
    )
    require(
        name not in _PICKLED,
        f"expected a data set whose files are data, got torchvision:{name}, which unpickles a file "
        "of its folder; name a folder of images instead",
    )
    parameters = inspect.signature(_kind(name)).parameters
    if "root" in parameters:
        settings["root"] = str(Path(str(settings.get("root", DEFAULT_ROOT))).absolute())
    origin, part = _with_split(name, settings, list(parameters), split)
    data = _opened(origin)
    classes = getattr(data, "classes", None) or ()
    return [
        Item(name, as_label(_target(data, index), classes, by_index), origin)
        for name, index in numbered_names(part, len(data), limit).items()
    ]


def _kind(name: str) -> Any:
    from torchvision import datasets

    kinds = {name: getattr(datasets, name) for name in datasets.__all__}
    known = [name for name, kind in kinds.items() if hasattr(kind, "__getitem__")]
    if name not in known:
        raise UnknownNameError("data set of torchvision", name, known)
    return kinds[name]


def _with_split(
    name: str, settings: dict[str, Any], parameters: list[str], split: str | None
) -> tuple[_TorchvisionSet, str]:
    """Return the data set with the split as its builder takes it, and the split's name."""
    choices = [split] if split else list(_SPLITS)
    if "train" in parameters:
        choice = split or "test"
        if choice not in ("train", "test"):
            raise UnilensError(
                f"expected the split of torchvision:{name} to be train or test, got {split!r}"
            )
        return _TorchvisionSet(name, _json(settings | {"train": choice == "train"})), choice
    if "split" not in parameters:
        if split:
            raise UnilensError(
                f"expected no split, since torchvision:{name} has none, got {split!r}"
            )
        return _TorchvisionSet(name, _json(settings)), _WHOLE
    for choice in choices:
        origin = _TorchvisionSet(name, _json(settings | {"split": choice}))
        try:
            _opened(origin)
        except _NoSuchSplitError as error:
            reason = error
        else:
            return origin, choice
    raise reason


class _NoSuchSplitError(UnilensError):
    """A split that the data set does not have."""


@functools.lru_cache(maxsize=4)
def _opened(origin: _TorchvisionSet) -> Any:
    settings = json.loads(origin.settings)
    source = f"torchvision:{origin.name}"
    try:
        return _kind(origin.name)(**settings)
    except TypeError as error:
        raise UnilensError(f"the settings of {source} do not fit it: {error}") from error
    except Exception as error:  # data sets raise anything
        reason = " ".join(str(error).split())
        if "argument split" in reason:
            raise _NoSuchSplitError(f"{source}: {reason}") from None
        raise UnilensError(
            f"no data of {source} in {settings.get('root')}: "
            f"{reason.partition(' You can use ')[0].rstrip('.')}; {_remedy(origin.name, settings)}"
        ) from None


def _remedy(name: str, settings: Mapping[str, Any]) -> str:
    remedy = f"name its folder, torchvision:{name}?root=FOLDER"
    if "download" not in inspect.signature(_kind(name)).parameters:
        return remedy
    call = f"torchvision.datasets.{name}({settings.get('root')!r}, download=True)"
    return f"{remedy}, or fetch it once where there is a network: {call}"


def _target(data: Any, index: int) -> Any:
    """Return the target at an index, without reading its image where possible."""
    for name in ("targets", "labels", "_labels"):
        targets = getattr(data, name, None)
        if targets is not None and len(targets) == len(data):
            return targets[index]
    return data[index][1]


def _json(settings: dict[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)

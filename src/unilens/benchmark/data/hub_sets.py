"""Data sets of Hugging Face, from the hub or from a local folder."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
from PIL import Image

from ...errors import UnilensError, UnknownNameError, first_line, require
from ...models import read_image
from .folders import read_file
from .items import Item, index_of, numbered_names, read_settings
from .labels import LABEL_COLUMNS, as_label

_SPLITS = ("validation", "val", "test", "train")
"""The default split is the first of these that exists: on the hub, tests often have no labels."""
_SETTINGS = ("name", "data_dir", "data_files", "revision", "image", "label")
_PICKLED = ("pandas",)
"""Readers of datasets whose files are pickles."""


@dataclass(frozen=True, slots=True)
class _HubSet:
    """A split of a data set of Hugging Face.

    Attributes:
        repo: its name, or a local folder.
        settings: of `load_dataset`, as JSON.
        column: of the images.
    """

    repo: str
    settings: str
    column: str

    def load(self, name: str) -> Image.Image:
        """Read the image of that row as upright RGB."""
        source = f"hf:{self.repo} {name}"
        row = _undecoded(self)[index_of(name)][self.column]
        if row is None:
            raise UnilensError(f"expected an image, got an empty cell: {source}")
        content = row["bytes"]
        if content is None:
            content = _file(self.repo, str(row["path"]), source)
        return read_image(BytesIO(content), source)


def _file(repo: str, text: str, source: str) -> bytes:
    """Return the content of the file that a cell names, which is one of the data set itself."""
    remote = text.startswith((f"hf://datasets/{repo}/", f"hf://datasets/{repo}@"))
    require("\0" not in text, f"expected the path of a file, got {text[:200]!r}: {source}")
    path = text if remote else os.path.realpath(Path(repo, text) if Path(repo).is_dir() else text)
    inside = any(Path(path).is_relative_to(os.path.realpath(place)) for place in _places(repo))
    require(
        ".." not in text.split("/") if remote else inside,
        f"expected the path of a file within the data set, got {text[:200]!r}: {source}; put the "
        "images into the table, or beside it",
    )
    try:
        if not remote:
            return read_file(path)
        with fsspec.open(path, "rb") as file:
            return bytes(file.read())
    except Exception as error:  # file systems raise whatever they like
        raise UnilensError(f"could not read {text} ({source}): {first_line(error)}") from error


def _places(repo: str) -> list[str]:
    """Return the folders in which a data set's files are."""
    import datasets

    if Path(repo).is_dir():
        return [repo]
    return [str(datasets.config.HF_DATASETS_CACHE), *_hub_caches(repo)]


def _hub_caches(repo: str) -> list[str]:
    from huggingface_hub import constants

    return [str(Path(constants.HF_HUB_CACHE) / f"datasets--{repo.replace('/', '--')}")]


def list_hub(
    text: str, *, split: str | None = None, limit: int | None = None, by_index: bool = False
) -> list[Item]:
    """Return the images of `REPO` or `REPO?name=CONFIGURATION`; see `open_source`."""
    repo, settings = read_settings(text)
    for setting in settings:
        if setting not in _SETTINGS:
            raise UnknownNameError(f"setting of hf:{repo}", setting, _SETTINGS)
    require(
        repo not in _PICKLED,
        f"expected a data set whose files are data, got hf:{repo}, which unpickles them; convert "
        "them to Parquet",
    )
    if Path(repo).is_dir():
        repo = str(Path(repo).absolute())
    image, label = settings.pop("image", None), settings.pop("label", None)
    settings["split"] = split or _split(repo, settings.get("name"))
    stored = json.dumps(settings, sort_keys=True)
    data = _loaded(repo, stored)
    image = image or _image_column(repo, data.features)
    label = label or _label_column(data.features)
    for role, column in (("image", image), ("label", label)):
        if column is not None and column not in data.features:
            known = ", ".join(data.features)
            raise UnilensError(f"expected {role} to be one of {known}, got {column!r}: hf:{repo}")
    indices = numbered_names(settings["split"], len(data), limit)
    classes = getattr(data.features.get(label), "names", None) or ()
    targets = data.select(list(indices.values())).select_columns([label])[label][:] if label else ()
    origin = _HubSet(repo, stored, image)
    return [
        Item(name, as_label(target, classes, by_index), origin)
        for name, target in zip(indices, targets or [None] * len(indices), strict=True)
    ]


def _split(repo: str, configuration: str | None) -> str:
    def splits(datasets: Any) -> list[str]:
        if not _is_saved(repo):
            return datasets.get_dataset_split_names(repo, configuration)
        saved = datasets.load_from_disk(repo)
        return list(saved) if isinstance(saved, dict) else [str(saved.split or "all")]

    names = _from_datasets(repo, splits)
    return next((name for name in _SPLITS if name in names), names[0])


@functools.lru_cache(maxsize=4)
def _loaded(repo: str, settings: str) -> Any:
    def load(datasets: Any) -> Any:
        chosen = json.loads(settings)
        if not _is_saved(repo):
            return datasets.load_dataset(repo, **chosen)
        saved = datasets.load_from_disk(repo)
        return saved[chosen["split"]] if isinstance(saved, dict) else saved

    return _from_datasets(repo, load)


@functools.lru_cache(maxsize=4)
def _undecoded(origin: _HubSet) -> Any:
    import datasets

    data = _loaded(origin.repo, origin.settings).select_columns([origin.column])
    return data.cast_column(origin.column, datasets.Image(decode=False))


def _image_column(repo: str, features: Mapping[str, Any]) -> str:
    columns = [name for name, kind in features.items() if type(kind).__name__ == "Image"]
    if len(columns) != 1:
        got = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in features.items())
        raise UnilensError(
            f"expected one column of images in hf:{repo}, got {got}; name it: "
            f"hf:{repo}?image=COLUMN"
        )
    return columns[0]


def _label_column(features: Mapping[str, Any]) -> str | None:
    classes = [name for name, kind in features.items() if type(kind).__name__ == "ClassLabel"]
    if len(classes) == 1:
        return classes[0]
    return next((name for name in LABEL_COLUMNS if name in (classes or features)), None)


def _is_saved(repo: str) -> bool:
    """Whether a local folder was written by `save_to_disk`."""
    return any((Path(repo) / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _from_datasets(repo: str, load: Callable[[Any], Any]) -> Any:
    try:
        import datasets
    except ModuleNotFoundError:
        raise UnilensError(
            "data sets of Hugging Face need datasets; run: pip install 'unilens[hf]'"
        ) from None
    try:
        return load(datasets)
    except Exception as error:  # hubs raise whatever their network libraries raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnilensError(
            f"could not load hf:{repo}: {reason}; check the name, the split and the network, or "
            "name a local folder"
        ) from error

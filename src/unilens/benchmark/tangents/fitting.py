"""A manifold and a classifier fitted to a data set, in a folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..._engine.workers import Workers
from ..._ops import files
from ..._validation.settings import check_choice, check_count
from ...errors import UnilensError, require
from ...manifold import PCA, Decoder, LocalPCA, Manifold, load_manifold, save_manifold
from ...manifold.files import KINDS
from ...manifold.tangent import reconstruction_error
from ...manifold.training import fit_autoencoder
from ...output import records
from ...provenance import versions
from ..data import is_named
from .classifier import ConvClassifier, accuracy, fit_classifier, load_classifier, save_classifier
from .sets import SETS, Images, Split, load_split

MANIFOLD, CLASSIFIER, ABOUT = "manifold.safetensors", "classifier.safetensors", "fit.json"
_RANKED = 100
"""Held-out images whose tangent space's rank is told."""
Step = Callable[[str], object]
"""Called after each epoch with what is being done."""


@dataclass(frozen=True)
class Wanted:
    """What is to be fitted.

    Attributes:
        data: see `load_split`.
        kind: "autoencoder", "pca" or "local_pca".
        dimension: of the tangent spaces.
        width: channels of the autoencoder's first layer.
        neighbours: of `local_pca`.
        epochs: of each network.
        size: pixels a side.
        limit: of the images to fit to.
        classifier: whether a classifier is fitted too.
        seed: of everything random.
    """

    data: str
    kind: str = "autoencoder"
    dimension: int = 16
    width: int = 16
    neighbours: int = 50
    epochs: int = 30
    size: int | None = None
    limit: int | None = None
    classifier: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        for name, least in (("dimension", 1), ("epochs", 1), ("neighbours", 2)):
            check_count(name, getattr(self, name), least)
        for name, least in (("size", 4), ("limit", 2)):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name), least)
        if self.data not in SETS and not is_named(self.data):
            object.__setattr__(self, "data", str(Path(self.data).absolute()))

    @property
    def steps(self) -> int:
        """How many epochs there are in all."""
        return self.epochs * ((self.kind == "autoencoder") + self.classifier)


@dataclass(frozen=True)
class Fitted:
    """What a folder holds.

    Attributes:
        manifold: of the data.
        classifier: of them, or None.
        split: the images.
        about: how it was made and how good it is, as plain data.
        path: of the manifold's file.
    """

    manifold: Manifold
    classifier: ConvClassifier | None
    split: Split
    about: dict[str, Any]
    path: Path


def fit(wanted: Wanted, folder: Path, on_step: Step = lambda _: None) -> dict[str, Any]:
    """Fit a manifold and a classifier, write them to a folder, and return what is known of them.

    Raises:
        UnilensError: the folder has a manifold already, or the data are not to be had.
    """
    for name in (MANIFOLD, CLASSIFIER, ABOUT):
        require(
            not (folder / name).exists(),
            f"{folder / name} exists already; choose another folder",
        )
    records.free_paths(folder, [], overwrite=False)
    began = time.perf_counter()
    split = load_split(wanted.data, wanted.size, wanted.limit)
    manifold, classifier = _both(wanted, split, on_step)
    about: dict[str, Any] = {
        "wanted": asdict(wanted),
        "versions": versions(),
        "images": {"train": len(split.train.names), "held_out": len(split.held_out.names)},
        "shape": list(split.train.values.shape[1:]),
        "manifold": _of_manifold(manifold, split),
    }
    if classifier is not None:
        shares = {"train": split.train, "held_out": split.held_out}
        about["classifier"] = {f"accuracy_{k}": accuracy(classifier, v) for k, v in shares.items()}
        files.write_whole(
            folder / CLASSIFIER.removesuffix(".safetensors"),
            ".safetensors",
            lambda name: save_classifier(classifier, name),
        )
    about["seconds"] = time.perf_counter() - began
    save_manifold(manifold, folder / MANIFOLD, about)
    records.write_json(folder / ABOUT.removesuffix(".json"), about)
    return about


def open_fitted(folder: Path) -> Fitted:
    """Return what `fit` has written, with the images again."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        wanted = Wanted(**about["wanted"])
    except FileNotFoundError:
        raise UnilensError(
            f"expected a folder of unilens manifold fit, but {folder} has no {ABOUT}; to fit one "
            "there first, pass --data"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnilensError(f"could not read {folder / ABOUT}: {error}") from error
    classifier = load_classifier(folder / CLASSIFIER) if wanted.classifier else None
    split = load_split(wanted.data, wanted.size, wanted.limit)
    return Fitted(load_manifold(folder / MANIFOLD), classifier, split, about, folder / MANIFOLD)


def _both(wanted: Wanted, split: Split, on_step: Step) -> tuple[Manifold, ConvClassifier | None]:
    """Return manifold and classifier, fitted side by side, each on a thread of its own.

    Networks as small as these gain nothing from several threads each, and lose much to them where
    the cores are busy.
    """
    done: dict[int, Any] = {}

    def one(number: Tensor) -> None:
        if number == 0:
            done[0] = _fitted(wanted, split.train.values, on_step)
            return
        done[1] = fit_classifier(
            split.train,
            split.classes,
            epochs=wanted.epochs,
            seed=wanted.seed,
            on_epoch=lambda loss: on_step(f"classifier: loss {loss:.4f}"),
        )

    Workers(None).run(one, list(torch.arange(1 + wanted.classifier)))
    return done[0], done.get(1)


def _fitted(wanted: Wanted, images: Tensor, on_step: Step) -> Manifold:
    if wanted.kind == "pca":
        return PCA.fit(images, wanted.dimension)
    if wanted.kind == "local_pca":
        return LocalPCA(images, wanted.dimension, wanted.neighbours)
    network = fit_autoencoder(
        images,
        dimension=wanted.dimension,
        width=wanted.width,
        epochs=wanted.epochs,
        seed=wanted.seed,
        on_epoch=lambda error: on_step(f"autoencoder: error {error**0.5:.4f}"),
    )
    return Decoder(network)


def _of_manifold(manifold: Manifold, split: Split) -> dict[str, Any]:
    """Return the rank of tangent spaces, and how well held-out images are reconstructed."""
    ranks = manifold(split.held_out.values[:_RANKED]).rank
    known: dict[str, Any] = {"rank": {"least": int(ranks.min()), "most": int(ranks.max())}}
    if not isinstance(manifold, (Decoder, PCA)):
        return known
    mean = split.train.values.mean(0)
    for name, images in (("train", split.train), ("held_out", split.held_out)):
        known[name] = _reconstructed(manifold, images, mean)
    return known


def _reconstructed(manifold: Decoder | PCA, images: Images, mean: Tensor) -> dict[str, float]:
    """Return the root of the mean squared error, and the share of the variance that is kept."""
    again = torch.cat([manifold.reconstruct(some) for some in images.values.split(500)])
    error = reconstruction_error(again, images.values).square().mean()
    variance = reconstruction_error(mean.expand_as(images.values), images.values).square().mean()
    return {"error": float(error.sqrt()), "variance_kept": float(1 - error / variance)}

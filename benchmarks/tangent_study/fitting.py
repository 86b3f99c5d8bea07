"""A manifold and a classifier fitted to a data set, in a folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unilens._engine.workers import Workers
from unilens.errors import UnilensError, require
from unilens.manifold import Manifold, load_manifold, save_manifold
from unilens.manifold.fitting import FitConfig, fit_manifold, fit_quality
from unilens.output import records
from unilens.provenance import versions

from .classifier import ConvClassifier, accuracy, fit_classifier, load_classifier, save_classifier
from .sets import Split, load_split

MANIFOLD, CLASSIFIER, ABOUT = "manifold.safetensors", "classifier.safetensors", "fit.json"
ProgressCallback = Callable[[str], object]
"""Called after each epoch with the network and its loss."""


@dataclass(frozen=True)
class FittedSet:
    """The contents of a folder.

    Attributes:
        manifold: of the data.
        classifier: of them.
        split: the images.
        about: settings and quality, as plain data.
        path: of the manifold's file.
    """

    manifold: Manifold
    classifier: ConvClassifier
    split: Split
    about: dict[str, Any]
    path: Path


def fit(
    folder: Path,
    data: str,
    config: FitConfig,
    *,
    limit: int | None = None,
    on_epoch: ProgressCallback = lambda text: None,
) -> dict[str, Any]:
    """Fit a manifold and a classifier, write them to a folder, and return their description.

    Raises:
        UnilensError: the folder has a fit already, or there is no such data set.
    """
    require(not (folder / ABOUT).exists(), f"{folder / ABOUT} exists already")
    folder.mkdir(parents=True, exist_ok=True)
    split = load_split(data, limit)
    manifold, classifier = _fit_both(config, split, on_epoch)
    about: dict[str, Any] = {
        "data": data,
        "limit": limit,
        "config": asdict(config),
        "versions": versions(),
        "images": {"train": len(split.train.names), "held_out": len(split.held_out.names)},
        "manifold": fit_quality(manifold, split.train.values, split.held_out.values),
        "accuracy": {name: accuracy(classifier, getattr(split, name)) for name in Split._fields},
    }
    save_classifier(classifier, folder / CLASSIFIER)
    save_manifold(manifold, folder / MANIFOLD, about)
    records.write_json(folder / ABOUT.removesuffix(".json"), about)
    return about


def open_fitted(folder: Path) -> FittedSet:
    """Return what `fit` has written, with the images."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnilensError(f"expected a folder with {ABOUT}, got {folder}; pass --data") from None
    return FittedSet(
        load_manifold(folder / MANIFOLD),
        load_classifier(folder / CLASSIFIER),
        load_split(about["data"], about["limit"]),
        about,
        folder / MANIFOLD,
    )


def _fit_both(
    config: FitConfig, split: Split, on_epoch: ProgressCallback
) -> tuple[Manifold, ConvClassifier]:
    """Fit manifold and classifier at the same time, each on one thread.

    Networks as small as these gain nothing from several threads each.
    """
    networks: dict[int, Any] = {}

    def fit_one(number: Tensor) -> None:
        if number == 0:
            networks[0] = fit_manifold(
                split.train.values,
                config,
                lambda error: on_epoch(f"autoencoder: error {error**0.5:.4f}"),
            )
        else:
            networks[1] = fit_classifier(
                split.train,
                epochs=config.epochs,
                seed=config.seed,
                on_epoch=lambda loss: on_epoch(f"classifier: loss {loss:.4f}"),
            )

    Workers(None).run(fit_one, list(torch.arange(2)))
    return networks[0], networks[1]

"""A manifold fitted to images, and how well it reconstructs others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from torch import Tensor

from .._validation.settings import Count, Settings, TwoOrMore, one_of
from .decoder import Decoder
from .files import KINDS
from .local import LocalPCA
from .pca import PCA
from .tangent import Manifold, reconstruction_error
from .training import fit_autoencoder

_RANKED_IMAGES = 100
"""Images whose tangent spaces' ranks are reported."""
_BATCH = 500


@dataclass(frozen=True)
class FitConfig(Settings):
    """The settings of a fit.

    Attributes:
        kind: "autoencoder", "pca" or "local_pca".
        dimension: of the tangent spaces.
        width: channels of the autoencoder's first layer.
        neighbours: images per local PCA.
        epochs: of the autoencoder.
        seed: of everything random.
    """

    kind: Annotated[str, one_of(KINDS)] = "autoencoder"
    dimension: Count = 16
    width: int = 16
    neighbours: TwoOrMore = 50
    epochs: Count = 30
    seed: int = 0


def fit_manifold(
    images: Tensor, config: FitConfig, on_epoch: Callable[[float], object] | None = None
) -> Manifold:
    """Return a manifold fitted to images `(N, C, H, W)`.

    Args:
        images: in float32, from 0 to 1.
        config: the kind and its settings.
        on_epoch: called with the autoencoder's mean squared error after each epoch.
    """
    if config.kind == "pca":
        return PCA.fit(images, config.dimension)
    if config.kind == "local_pca":
        return LocalPCA(images, config.dimension, config.neighbours)
    network = fit_autoencoder(
        images,
        dimension=config.dimension,
        width=config.width,
        epochs=config.epochs,
        seed=config.seed,
        on_epoch=on_epoch,
    )
    return Decoder(network)


def fit_quality(manifold: Manifold, train: Tensor, held_out: Tensor) -> dict[str, Any]:
    """Return the rank of the tangent spaces and the reconstruction error as plain data.

    `error` is the root of the mean squared error per pixel, `variance_kept` the share of the
    variance about the training images' mean. A local PCA reconstructs nothing and has neither.
    """
    ranks = manifold(held_out[:_RANKED_IMAGES]).rank
    quality: dict[str, Any] = {"rank": {"least": int(ranks.min()), "most": int(ranks.max())}}
    if isinstance(manifold, Decoder | PCA):
        mean = train.mean(0)
        for name, images in (("train", train), ("held_out", held_out)):
            quality[name] = _reconstruction_quality(manifold, images, mean)
    return quality


def _reconstruction_quality(
    manifold: Decoder | PCA, images: Tensor, mean: Tensor
) -> dict[str, float]:
    batches = [manifold.reconstruct(batch) for batch in images.split(_BATCH)]
    error = reconstruction_error(torch.cat(batches), images).square().mean()
    variance = reconstruction_error(mean.expand_as(images), images).square().mean()
    return {"error": float(error.sqrt()), "variance_kept": float(1 - error / variance)}

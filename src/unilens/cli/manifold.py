"""`unilens manifold fit`: a manifold of the data, for the baseline and the metric that take one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import require
from . import options
from .app import app, needs_extra
from .output import progress, show, show_written

if TYPE_CHECKING:
    from torch import Tensor

manifold = typer.Typer(help="Fit the manifold of the data and its tangent spaces.")
app.add_typer(manifold, name="manifold")
_HELD_OUT = 0.2
"""The share of the images on which the fit is checked."""


@manifold.command("fit")
def fit(
    file: Annotated[Path, typer.Argument(metavar="FILE", hidden=True)],
    data: Annotated[
        str,
        typer.Option(
            metavar="SOURCE",
            help="Images, as for benchmark: a folder, torchvision:NAME, hf:REPO.",
        ),
    ],
    split: options.Split = None,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="autoencoder, pca or local_pca.")
    ] = "autoencoder",
    dimension: Annotated[
        int, typer.Option(metavar="N", help="Dimension of the tangent spaces.")
    ] = 16,
    width: Annotated[
        int, typer.Option(metavar="N", help="Channels of the autoencoder's first layer.")
    ] = 16,
    neighbours: Annotated[int, typer.Option(metavar="N", help="Neighbours of local_pca.")] = 50,
    epochs: Annotated[int, typer.Option(metavar="N", help="Epochs of the autoencoder.")] = 30,
    size: Annotated[int, typer.Option(metavar="N", help="Height and width in pixels.")] = 32,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Most images; all by default.")
    ] = None,
    seed: options.Seed = 0,
    overwrite: options.Overwrite = False,
) -> None:
    """Fit a manifold to images, and check it on a fifth of them.

    FILE is written, such as digits.safetensors. It is what `manifold=` takes, as in
    ig:baseline=tangent_aligned,manifold=FILE.
    """
    require(
        overwrite or not file.exists(),
        f"{file} exists already; choose another name, or replace it with --overwrite",
    )
    with needs_extra("manifold", "benchmark"):
        from ..benchmark.data import open_source  # noqa: F401  # refused before the fit
    from .._validation.settings import check_count
    from ..manifold.files import save_manifold
    from ..manifold.fitting import FitConfig, fit_manifold, fit_quality
    from ..provenance import versions

    config = FitConfig(kind, dimension, width, neighbours, epochs, seed)
    check_count("size", size, 4)
    began = time.perf_counter()
    images = _read(data, split, limit, size)
    count = max(1, round(_HELD_OUT * len(images)))
    held_out, train = images[:count], images[count:]
    require(len(train) > 1, f"expected at least 3 images in {data}, got {len(images)}")
    with progress(epochs if kind == "autoencoder" else 1) as bar:
        fitted = fit_manifold(train, config, lambda error: bar.advance(f"error {error**0.5:.4f}"))
    about: dict[str, Any] = {
        "config": asdict(config) | {"data": data, "split": split, "limit": limit, "size": size},
        "versions": versions(),
        "images": {"train": len(train), "held_out": len(held_out)},
        "manifold": fit_quality(fitted, train, held_out),
        "seconds": time.perf_counter() - began,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_manifold(fitted, file, about, overwrite=overwrite)
    quality = _quality(about["manifold"])
    show(f": {len(train)} images, {len(held_out)} held out; {kind}, {quality}", title=data)
    show_written(file)


def _read(data: str, split: str | None, limit: int | None, size: int) -> Tensor:
    """Return images `(N, C, size, size)` from 0 to 1; C is 1 where all are grey."""
    import torch

    from ..benchmark.data import open_source
    from ..models.classifier import Preprocessing

    take = Preprocessing((size, size), size, (0.0,) * 3, (1.0,) * 3, "bilinear")
    images = torch.stack(
        [take(item.load()) for item in open_source(data, split=split, limit=limit)]
    )
    return images[:, :1] if bool((images == images[:, :1]).all()) else images


def _quality(quality: Mapping[str, Any]) -> str:
    """Return the rank and the held-out error in words."""
    least, most = quality["rank"]["least"], quality["rank"]["most"]
    text = f"rank {least}" if least == most else f"rank {least}-{most}"
    if "held_out" in quality:
        error, kept = quality["held_out"]["error"], quality["held_out"]["variance_kept"]
        text += f", error {error:.3f} held out ({kept:.1%} of variance kept)"
    return text

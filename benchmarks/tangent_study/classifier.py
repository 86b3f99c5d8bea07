"""A small convolutional classifier, and its file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy, gelu

from unilens.errors import UnilensError
from unilens.manifold.training import seeded, train

from .sets import Images


class ConvClassifier(nn.Module):
    """From images `(B, C, H, W)` in [0, 1] to logits `(B, K)`.

    Two convolutions with GELU, whose second derivatives a search through an attribution needs; ReLU
    has none.

    Args:
        shape: C, H, W.
        classes: K.
        width: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, shape: Sequence[int], classes: int, width: int = 16) -> None:
        super().__init__()
        self.shape, self.classes, self.width = tuple(shape), classes, width
        channels, height, breadth = shape
        self.first = nn.Conv2d(channels, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.last = nn.Linear(2 * width * (height // 4) * (breadth // 4), classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits `(B, K)` of images `(B, C, H, W)`."""
        hidden = avg_pool2d(gelu(self.first(images)), 2)
        return self.last(avg_pool2d(gelu(self.second(hidden)), 2).flatten(1))


def fit_classifier(
    images: Images,
    *,
    epochs: int = 15,
    seed: int = 0,
    on_epoch: Callable[[float], object] | None = None,
) -> ConvClassifier:
    """Return a classifier of labelled images, in eval mode."""
    values, labels = images.values, images.labels
    classes = int(labels.max()) + 1
    network = seeded(seed, lambda: ConvClassifier(values.shape[1:], classes))
    return train(
        network,
        lambda numbers: cross_entropy(network(values[numbers]), labels[numbers]),
        len(values),
        epochs=epochs,
        learning_rate=3e-3,
        batch=64,
        seed=seed,
        on_epoch=on_epoch,
    )


def accuracy(network: nn.Module, images: Images) -> float:
    """Return the share of images whose class is predicted."""
    with torch.no_grad():
        predicted = torch.cat([network(batch).argmax(1) for batch in images.values.split(500)])
    return float((predicted == images.labels).double().mean())


def save_classifier(network: ConvClassifier, path: str | Path) -> None:
    """Write a classifier to a file."""
    settings = {key: getattr(network, key) for key in ("shape", "classes", "width")}
    save_file(network.state_dict(), path, {"classifier": json.dumps(settings)})


def load_classifier(path: Path) -> ConvClassifier:
    """Return the classifier in a file, in eval mode."""
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["classifier"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network = ConvClassifier(**settings)
        network.load_state_dict(tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UnilensError(f"expected a classifier in {path}: {error}") from error
    return network.eval().requires_grad_(False)

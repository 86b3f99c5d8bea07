"""Training of small networks on a CPU: an autoencoder, or any network with a loss."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .._ops.precision import float32_by_default
from .._validation.inputs import check_seed
from .._validation.settings import check_count, check_number
from ..errors import UnilensError, require
from .autoencoder import ConvAutoencoder

_SEEDED = threading.Lock()
Network = TypeVar("Network", bound=nn.Module)
Loss = Callable[[Tensor], Tensor]
"""From the numbers `(m,)` of training examples to their mean loss."""


def fit_autoencoder(
    images: Tensor,
    *,
    dimension: int = 16,
    width: int = 16,
    epochs: int = 30,
    learning_rate: float = 2e-3,
    batch: int = 64,
    seed: int = 0,
    on_epoch: Callable[[float], object] | None = None,
) -> ConvAutoencoder:
    """Return a convolutional autoencoder of images, in eval mode.

    Args:
        images: `(N, C, H, W)` in float32.
        dimension: numbers of the code.
        width: channels of the first layer.
        epochs: passes over all images.
        learning_rate: of Adam, the peak of a one-cycle schedule.
        batch: images per step.
        seed: of the first weights and of the order of the images.
        on_epoch: called with the mean squared error of each epoch, to show progress.
    """
    require(
        images.ndim == 4 and images.is_floating_point() and len(images) > 0,
        f"expected images (N, C, H, W), floating point, got {tuple(images.shape)}, {images.dtype}",
    )
    network = seeded(seed, lambda: ConvAutoencoder(images.shape[1:], dimension, width))
    network.to(images.device).to(memory_format=torch.channels_last)
    return train(
        network,
        lambda numbers: mse_loss(network(images[numbers]), images[numbers]),
        len(images),
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        seed=seed,
        on_epoch=on_epoch,
    )


def seeded(seed: int, make: Callable[[], Network]) -> Network:
    """Return a network with initial weights from the seed; torch's generator is unchanged."""
    with _SEEDED, torch.random.fork_rng(devices=[]), float32_by_default():
        torch.manual_seed(seed)
        return make()


def train(
    network: Network,
    loss: Loss,
    count: int,
    *,
    epochs: int,
    learning_rate: float,
    batch: int,
    seed: int,
    on_epoch: Callable[[float], object] | None = None,
) -> Network:
    """Train a network by Adam, and return it in eval mode, its weights frozen.

    Raises:
        UnilensError: a setting is wrong, or the loss is no longer finite.
    """
    epochs, batch = check_count("epochs", epochs), check_count("batch", batch)
    learning_rate = check_number("learning_rate", learning_rate, above=0)
    order = torch.Generator().manual_seed(check_seed(seed))
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    steps = -(-count // batch) * epochs
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps)
    network.train()
    for _ in range(epochs):
        total = 0.0
        for numbers in torch.randperm(count, generator=order).split(batch):
            optimiser.zero_grad()
            value = loss(numbers)
            value.backward()
            optimiser.step()
            cycle.step()
            total += float(value.detach()) * len(numbers)
        if not total < float("inf"):
            raise UnilensError(
                f"the training has diverged; lower learning_rate, which was {learning_rate}"
            )
        if on_epoch is not None:
            on_epoch(total / count)
    return network.eval().requires_grad_(False)

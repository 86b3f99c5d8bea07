"""Training of the networks whose reasons are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..._engine.workers import Workers
from ...manifold.training import seeded, train


def trained(
    layers: Callable[[], Iterable[nn.Module]], images: Tensor, classes: Tensor
) -> nn.Module:
    """Return a chain of fresh layers, trained on images `(N, 3, H, W)` of classes `(N,)`.

    The seed is fixed and there is one thread, so that it is the same network each time.
    """
    fresh = seeded(0, lambda: nn.Sequential(*layers()))
    with Workers(None).alone():
        return train(
            fresh,
            lambda rows: cross_entropy(fresh(images[rows]), classes[rows]),
            len(images),
            epochs=8,
            learning_rate=3e-3,
            batch=64,
            seed=0,
        )

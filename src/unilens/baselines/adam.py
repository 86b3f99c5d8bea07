"""Adam, the optimiser of the searches for a baseline."""

from __future__ import annotations

import torch
from torch import Tensor


class Adam:
    """Compute Adam's steps so that an input alone and in any batch is rounded the same.

    `torch.optim.Adam` uses fused operations, which do not ensure that, and takes nearly three
    seconds to import.

    Args:
        rate: the learning rate, in the values' units.
        like: a tensor of the values' shape, dtype and device.

    References:
        Kingma, Ba, "Adam", ICLR 2015, arXiv 1412.6980.
    """

    def __init__(self, rate: float, like: Tensor) -> None:
        self._rate, self._count = rate, 0
        self._mean, self._square = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, gradient: Tensor) -> Tensor:
        """Return the step to subtract from the values, in the gradient's shape."""
        self._count += 1
        self._mean = 0.9 * self._mean + 0.1 * gradient
        self._square = 0.999 * self._square + 0.001 * (gradient * gradient)
        mean = self._mean / (1 - 0.9**self._count)
        deviation = (self._square / (1 - 0.999**self._count)).sqrt()
        return self._rate * mean / (deviation + 1e-8)

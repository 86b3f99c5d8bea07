"""A small convolutional autoencoder for images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import gelu, interpolate

from .._validation.settings import check_count
from ..errors import require


class ConvAutoencoder(nn.Module):
    """From images `(B, C, H, W)` to k numbers and back.

    Two convolutions halve the sides, a linear layer makes the code; the decoder mirrors them. GELU
    and nearest-neighbour enlargement keep the decoder smooth, so that its Jacobian is defined
    everywhere. The last layer is linear: pixels are not forced into a range.

    Args:
        shape: C, H, W.
        dimension: k.
        width: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, shape: Sequence[int], dimension: int = 16, width: int = 32) -> None:
        super().__init__()
        require(
            len(shape) == 3 and min(shape) >= 1,
            f"expected a shape (C, H, W), got {tuple(shape)}",
        )
        dimension, width = check_count("dimension", dimension), check_count("width", width)
        self.shape = tuple(map(int, shape))
        self.dimension, self.width = dimension, width
        channels, *sides = self.shape
        self._halves = [-(-side // 2) for side in sides]
        self._quarters = [-(-side // 2) for side in self._halves]
        inner = 2 * width * self._quarters[0] * self._quarters[1]
        self.first = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.to_code = nn.Linear(inner, dimension)
        self.from_code = nn.Linear(dimension, inner)
        self.third = nn.Conv2d(2 * width, width, 3, padding=1)
        self.fourth = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the codes `(B, k)`."""
        seen = gelu(self.second(gelu(self.first(inputs))))
        return self.to_code(seen.flatten(1))

    def decode(self, codes: Tensor) -> Tensor:
        """Return the images `(B, C, H, W)`."""
        small = gelu(self.from_code(codes)).unflatten(1, (2 * self.width, *self._quarters))
        half = gelu(self.third(interpolate(small, self._halves)))
        whole = gelu(self.fourth(interpolate(half, list(self.shape[1:]))))
        return self.last(whole)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the reconstructions `(B, C, H, W)`."""
        return self.decode(self.encode(inputs))

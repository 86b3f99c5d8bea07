"""A network as a classifier of pixels: values in [0, 1] go in, the normalisation is inside."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from ..errors import UnilensError
from ..gradients import Evaluator
from .images import to_rgb
from .labels import Labelled


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes the network's pixels.

    Attributes:
        size: height and width of the crop that the network sees, in pixels.
        resize: the shorter side before the crop, or (height, width) to stretch to.
        mean: per channel, subtracted inside the classifier; in units of [0, 1] pixels.
        std: per channel, divided by inside the classifier.
        interpolation: "bicubic", "bilinear" or "nearest".
    """

    size: tuple[int, int]
    resize: int | tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"

    def __call__(self, image: Image.Image) -> Tensor:
        """Return an image as `(3, H, W)` in [0, 1]: resized, then cropped about its centre."""
        size = self.resize if isinstance(self.resize, int) else list(self.resize)
        resized = transforms.resize(
            to_rgb(image), size, InterpolationMode(self.interpolation), antialias=True
        )
        return transforms.to_tensor(transforms.center_crop(resized, list(self.size)))


class PixelClassifier(Labelled, nn.Module):
    """An image network from pixels `(B, 3, H, W)` in [0, 1] to logits `(B, K)`.

    Args:
        network: from normalised images to logits.
        preprocessing: sizes, mean and std.
        labels: of the classes, in order; several names of one class are separated by commas. Of two
            labels of a network with one output, that output is the second one's.
        name: how to load it again.
        origin: where the weights come from, and their licence.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        labels: Sequence[str] = (),
        name: str = "",
        origin: str = "",
    ) -> None:
        super().__init__()
        self.network = network
        self.preprocessing = preprocessing
        self.labels = tuple(labels)
        self.name, self.origin = name, origin
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits `(B, K)` of images `(B, 3, H, W)` in [0, 1]."""
        logits: Tensor = self.network((pixels - self.mean) / self.std)
        return logits

    @functools.cached_property
    def single_output(self) -> bool:  # type: ignore[override]
        """Whether the network has one output; looked at once, on an empty image."""
        empty = self.mean.new_zeros(1, len(self.preprocessing.mean), *self.preprocessing.size)
        try:
            return Evaluator(self)(empty).shape[-1] == 1
        except UnilensError:  # what the network does not take is said where it is explained
            return False

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return a photograph as the pixels `(3, H, W)` in [0, 1] that the network sees."""
        return self.preprocessing(image)

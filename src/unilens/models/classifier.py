"""A network as a classifier of pixels in [0, 1], with the normalisation inside."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as transforms

from .._engine.evaluator import Evaluator
from ..errors import UnilensError
from .images import ImageSource, Range, open_image, to_channels
from .labels import Labelled

_HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing from a photograph to the network's pixels.

    Attributes:
        size: height and width of the crop that the network sees, in pixels.
        resize: the shorter side before the crop, or (height, width) to stretch to.
        mean: per channel, subtracted inside the classifier; in units of [0, 1] pixels. As many as
            the network has channels: 1 is grey, 4 is red, green, blue and opacity.
        std: per channel, divided by inside the classifier.
        interpolation: "bicubic", "bilinear", "nearest", "lanczos", "box" or "hamming".
        transform: of another library, in place of `resize`, `size` and `interpolation`: from a PIL
            image to the normalised `(C, H, W)`. The normalisation is undone after it.
    """

    size: tuple[int, int]
    resize: int | tuple[int, int] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bicubic"
    transform: Callable[[Image.Image], Tensor] | None = None

    def __call__(self, image: ImageSource, *, value_range: Range = None) -> Tensor:
        """Return an image as `(C, H, W)` in [0, 1]: resized, then cropped about its centre.

        Args:
            image: whatever `read_image` takes.
            value_range: as for `read_image`.

        Raises:
            UnilensError: as `read_image` does, and where the image lacks a channel.
        """
        picture = to_channels(open_image(image, value_range=value_range), len(self.mean))
        if self.transform is not None:
            return self.transform(picture) * _per_channel(self.std) + _per_channel(self.mean)
        size = list(self.resize) if isinstance(self.resize, tuple) else self.resize
        resized = transforms.resize(
            picture, size, InterpolationMode(self.interpolation), antialias=True
        )
        return transforms.to_tensor(transforms.center_crop(resized, list(self.size)))

    def __str__(self) -> str:
        """Return a description in words."""
        height, width = self.size
        steps = [f"{len(self.mean)} channel{'s' * (len(self.mean) != 1)} in [0, 1]"]
        if self.transform is not None:
            steps.append(f"the library's own transform to {height} x {width} pixels")
        elif isinstance(self.resize, tuple):
            steps.append(f"stretched to {self.resize[0]} x {self.resize[1]} ({self.interpolation})")
        else:
            steps.append(f"shorter side to {self.resize} pixels ({self.interpolation})")
        if self.transform is None and self.resize != self.size:
            steps.append(f"cropped to {height} x {width}")
        mean, std = (
            ", ".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std)
        )
        return f"{'; '.join(steps)}; mean {mean}; standard deviation {std}"


def _per_channel(values: Sequence[float]) -> Tensor:
    return torch.tensor(tuple(values), dtype=torch.float32).view(-1, 1, 1)


class PixelClassifier(Labelled, nn.Module):
    """An image network from pixels `(B, C, H, W)` in [0, 1] to logits `(B, K)`.

    Args:
        network: from normalised images to logits.
        preprocessing: sizes, mean and std.
        labels: of the classes, in order; several names of one class are separated by commas. Of two
            labels of a network with one output, that output is the second one's.
        name: to load it again by.
        origin: of the weights, and their licence.
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
        self.register_buffer("mean", _per_channel(preprocessing.mean))
        self.register_buffer("std", _per_channel(preprocessing.std))
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the logits `(B, K)` of images `(B, C, H, W)` in [0, 1]."""
        normalised = (pixels - self.mean) / self.std
        weights = (value for value in self.network.parameters() if value.ndim > 1)
        if (weight := next(weights, None)) is not None and weight.dtype in _HALF:
            normalised = normalised.to(weight.dtype)
        logits: Tensor = self.network(normalised)
        return logits

    @functools.cached_property
    def single_output(self) -> bool:  # type: ignore[override]
        """Whether the network has one output; computed once, on a black image."""
        empty = self.mean.new_zeros(1, len(self.preprocessing.mean), *self.preprocessing.size)
        try:
            return Evaluator(self)(empty).shape[-1] == 1
        except UnilensError:  # the error is raised where the network is explained
            return False

    def preprocess(self, image: ImageSource, *, value_range: Range = None) -> Tensor:
        """Return a photograph as the pixels `(C, H, W)` in [0, 1] that the network sees.

        Args:
            image: a path, an open file, a PIL image, an array or a tensor, as for `read_image`.
            value_range: the values that are black and white, as for `read_image`.
        """
        return self.preprocessing(image, value_range=value_range)

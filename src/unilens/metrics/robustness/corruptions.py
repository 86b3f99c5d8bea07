"""Changes of pictures that a person looks past: light, colour, blur, noise and storage.

After ImageNet-C (Hendrycks & Dietterich 2019, arXiv 1903.12261), with the strength as one number in
a unit of its own: 0 leaves the picture, and nothing jumps on the way to it, but for what comes in
steps by its nature: impulses, whole pixels and stored bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..._ops.luminance import check_unit_pictures
from ..._ops.precision import to_float64
from ..._validation.settings import Settings, check_number
from ...baselines import blur
from ...errors import NotApplicableError, require
from ...registry import Card, Registry

CorruptionFunction = Callable[[Tensor, float, list[torch.Generator]], Tensor]
"""From pictures `(B, C, H, W)`, a strength and a generator per picture to changed pictures."""


@dataclass(frozen=True)
class Corruption(Settings):
    """A change of pictures, of any strength.

    Args:
        function: what it does; what leaves the range of pictures is cut off afterwards.
        unit: of the strength, in words.
        severities: the five strengths of ImageNet-C, for images of 224 x 224 pixels.
        lowest: the lowest strength that has a meaning.
        highest: likewise.
    """

    function: CorruptionFunction
    unit: str
    severities: tuple[float, ...]
    lowest: float = 0.0
    highest: float = math.inf

    def check(self, strength: object) -> None:
        """Raise unless the strength is one that the corruption can have."""
        check_number("the strength", strength)
        require(
            strength >= self.lowest,  # type: ignore[operator]
            f"expected a strength of at least {self.lowest:g} ({self.unit}), got {strength!r}",
        )
        require(
            strength <= self.highest,  # type: ignore[operator]
            f"expected a strength of at most {self.highest:g} ({self.unit}), got {strength!r}",
        )

    def __call__(
        self, inputs: Tensor, strength: float, generators: list[torch.Generator]
    ) -> Tensor:
        """Return changed pictures.

        Args:
            inputs: `(B, C, H, W)` in [0, 1], C either 1 or 3.
            strength: in `unit`; 0 leaves the pictures.
            generators: one per picture, on the CPU; used where the change is random.

        Returns:
            `(B, C, H, W)` in [0, 1], on the inputs' device and in their dtype.

        Raises:
            NotApplicableError: the inputs are no pictures in [0, 1].
            UnilensError: there is no such strength.
        """
        self.check(strength)
        check_corruptible(inputs)
        if strength == 0:
            return inputs.clone()
        return self.function(inputs, strength, generators).clamp(0, 1)


corruptions: Registry[Corruption] = Registry("corruption")
PACKAGED = (
    "motion_blur",
    "zoom_blur",
    "glass_blur",
    "snow",
    "frost",
    "fog",
    "spatter",
)
"""Further ones of ImageNet-C, as images of a benchmark alone (extra `corruptions`)."""


def check_corruptible(inputs: Tensor) -> None:
    """Raise `NotApplicableError` unless inputs are grey or colour pictures in [0, 1]."""
    check_unit_pictures(inputs, "light, colour and focus are those of pictures")


def _register(
    family: str, summary: str, unit: str, severities: tuple[float, ...], **limits: float
) -> Callable[[CorruptionFunction], CorruptionFunction]:
    """Register a function, under its name; noise is random."""

    def register(function: Any) -> CorruptionFunction:
        reference = "Hendrycks & Dietterich 2019, arXiv 1903.12261"
        summary_of = f"{summary}; strength: {unit}"
        card = Card(function.__name__, family, summary_of, reference, family != "noise")
        corruptions.add_value(card, Corruption(function, unit, severities, **limits))
        return cast(CorruptionFunction, function)

    return register


@_register(
    "light", "lighter or darker", "added to the HSV value", (0.1, 0.2, 0.3, 0.4, 0.5), lowest=-1
)
def brightness(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Add the strength to each pixel's value (HSV); hue and saturation stay: x V' / V."""
    value = inputs.amax(1, keepdim=True)
    brightened = (value + strength).clamp(0, 1)
    return torch.where(value > 0, inputs * (brightened / value.clamp(min=1e-12)), brightened)


@_register(
    "light",
    "steeper or flatter about the mean",
    "added to the factor 1",
    (-0.6, -0.7, -0.8, -0.9, -0.95),
    lowest=-1,
)
def contrast(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Scale each channel about its mean by 1 + strength."""
    mean = to_float64(inputs).mean((2, 3), keepdim=True).to(inputs.dtype)
    return mean + (1 + strength) * (inputs - mean)


@_register(
    "colour", "more or less colour", "added to the factor 1", (-0.7, -0.9, 1, 4, 19), lowest=-1
)
def saturation(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Scale each pixel's saturation (HSV) by 1 + strength, up to 1; hue and value stay."""
    if inputs.shape[1] != 3:
        raise NotApplicableError(
            f"expected pictures in colour (B, 3, H, W), got {tuple(inputs.shape)}; grey ones have "
            "no saturation; use another corruption"
        )
    value = inputs.amax(1, keepdim=True)
    spread = value - inputs.amin(1, keepdim=True)
    most = value / spread.clamp(min=1e-12)
    return value - (value - inputs) * most.clamp(max=1 + strength)


@_register("blur", "blur by a gaussian", "standard deviation in pixels", (1, 2, 3, 4, 6))
def gaussian_blur(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Convolve with a gaussian; beyond the border lies the border."""
    return blur.gaussian_blur(inputs, torch.tensor([strength], dtype=torch.float64))[0]


@_register("blur", "blur by a disk, as a lens out of focus", "radius in pixels", (3, 4, 6, 8, 10))
def defocus_blur(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Convolve with a disk whose rim is smooth: weights clip(radius + 1/2 - distance, 0, 1)."""
    side = max(inputs.shape[2:])
    require(strength <= side, f"expected a radius up to the picture's {side}, got {strength:g}")
    reach = math.ceil(strength)
    along = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (strength + 0.5 - (along[:, None] ** 2 + along**2).sqrt()).clamp(0, 1)
    disk = disk / disk.sum()
    height, width = inputs.shape[2:]
    around = pad(to_float64(inputs), (reach,) * 4, mode="replicate")
    total = torch.zeros_like(to_float64(inputs))
    for row, column in disk.nonzero().tolist():
        moved = around[..., row : row + height, column : column + width]
        total.add_(moved, alpha=float(disk[row, column]))
    return total.to(inputs.dtype)


@_register("noise", "normal noise", "standard deviation", (0.08, 0.12, 0.18, 0.26, 0.38))
def gaussian_noise(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Add normal noise, the same for every value whatever its brightness."""
    return inputs + strength * _normal(inputs, generators)


@_register(
    "noise",
    "noise of counted photons",
    "standard deviation at white",
    (0.13, 0.2, 0.29, 0.45, 0.58),
)
def shot_noise(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Count photons, 1 / strength^2 of them at white: Poisson noise."""
    require(strength >= 1e-6, f"expected 0, or a strength of at least 1e-6, got {strength:g}")
    photons = strength**-2
    counted = [
        torch.poisson(one.detach().cpu().double() * photons, generator=generator)
        for one, generator in zip(inputs, generators, strict=True)
    ]
    return (torch.stack(counted) / photons).to(inputs)


@_register(
    "noise",
    "normal noise, more of it where it is light",
    "standard deviation at white",
    (0.15, 0.2, 0.35, 0.45, 0.6),
)
def speckle_noise(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Add normal noise in proportion to the value: x + x n."""
    return inputs + strength * inputs * _normal(inputs, generators)


@_register(
    "noise",
    "single values lost, black or white",
    "share of the values",
    (0.03, 0.06, 0.09, 0.17, 0.27),
    highest=1,
)
def impulse_noise(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Set a share of the values, each channel by itself, to 0 or 1, either as likely."""
    shape = (2, *inputs.shape[1:])
    drawn = torch.stack(
        [torch.rand(shape, generator=one, dtype=torch.float64) for one in generators]
    )
    struck, salt = (drawn[:, 0] < strength).to(inputs.device), drawn[:, 1] < 0.5
    return torch.where(struck, salt.to(inputs), inputs)


@_register(
    "storage",
    "coarser pixels",
    "share of rows and columns lost",
    (0.4, 0.5, 0.6, 0.7, 0.75),
    highest=1,
)
def pixelate(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Take rows and columns away and put blocks in their stead: Pillow's BOX, down and up again."""
    from PIL import Image

    full = inputs.shape[3], inputs.shape[2]
    fewer = [max(1, int(side * (1 - strength) + 1e-9)) for side in full]
    found = []
    for plane in inputs.detach().cpu().float().flatten(0, 1).numpy():
        image = Image.fromarray(plane).resize(fewer, Image.Resampling.BOX)
        found.append(numpy.asarray(image.resize(full, Image.Resampling.BOX)))
    return torch.from_numpy(numpy.stack(found)).view(inputs.shape).to(inputs)


@_register("storage", "stored as JPEG", "quality taken from 100", (75, 82, 85, 90, 93), highest=99)
def jpeg_compression(inputs: Tensor, strength: float, generators: list[torch.Generator]) -> Tensor:
    """Store the picture as an 8-bit JPEG of quality 100 - strength, and read it again."""
    from PIL import Image

    found = []
    for one in (inputs.detach().cpu().double() * 255).round().byte().permute(0, 2, 3, 1).numpy():
        file, grey = io.BytesIO(), one.shape[-1] == 1
        image = Image.fromarray(one[..., 0] if grey else one)
        image.save(file, "JPEG", quality=round(100 - strength))
        found.append(torch.from_numpy(numpy.array(Image.open(file)).reshape(one.shape)))
    return (torch.stack(found).permute(0, 3, 1, 2).double() / 255).to(inputs)


def _normal(inputs: Tensor, generators: list[torch.Generator]) -> Tensor:
    drawn = [
        torch.randn(inputs.shape[1:], generator=one, dtype=torch.float64) for one in generators
    ]
    return torch.stack(drawn).to(inputs)

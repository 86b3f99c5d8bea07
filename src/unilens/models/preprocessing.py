"""The preprocessing of other libraries, by our settings where these give the same pixels."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from ..errors import UnilensError, UnilensWarning, first_line, require
from .classifier import Preprocessing

Transform = Callable[[Image.Image], Tensor]
"""From a PIL image to the normalised `(C, H, W)`."""

TOLERANCE = 1.01 / 255
"""The largest difference, of [0, 1], between our pixels and theirs: one step of 8 bits."""
_SIDES = (450, 300), (131, 197)
"""Width and height of the pictures for the comparison."""


def of_timm(config: Mapping[str, Any], name: str) -> Preprocessing:
    """Return the preprocessing of timm's data config (`timm.data.resolve_model_data_config`)."""
    from timm.data.transforms_factory import create_transform

    transform = create_transform(**config, is_training=False)
    return agreed(transform, _candidate_of_timm(config), name, config["input_size"][0])


def _candidate_of_timm(config: Mapping[str, Any]) -> Preprocessing:
    _, height, width = config["input_size"]
    before = int(height / config["crop_pct"]), int(width / config["crop_pct"])
    return Preprocessing(
        size=(height, width),
        resize=before if config["crop_mode"] == "squash" else min(before),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
    )


def of_torchvision(transform: Any, name: str) -> Preprocessing:
    """Return the preprocessing of torchvision's `weights.transforms()`."""
    ours = Preprocessing(
        size=(transform.crop_size[0],) * 2,
        resize=transform.resize_size[0],
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )
    return agreed(transform, ours, name)


def of_transformers(processor: Any, config: Any, name: str) -> Preprocessing:
    """Return the preprocessing of an image processor of transformers.

    Args:
        processor: the image processor.
        config: of the network, with its number of channels; 3 where it has none.
        name: of the network, in messages.
    """
    data = getattr(processor, "data_config", None)  # a checkpoint of timm
    channels = data["input_size"][0] if data else getattr(config, "num_channels", 3)
    ours = _candidate_of_timm(data) if data else _candidate(processor, channels)
    return agreed(_Processor(processor), ours, name, channels)


def agreed(
    transform: Transform, ours: Preprocessing | None, name: str, channels: int = 3
) -> Preprocessing:
    """Return `ours` where it equals a transform on two pictures, or else one that calls it.

    Args:
        transform: another library's preprocessing.
        ours: the same by its settings; None where they have no counterpart.
        name: of the network, in messages.
        channels: of the picture that the transform takes: 1 is grey.

    Raises:
        UnilensError: the transform fails, gives no picture of one size, or does more to its
            colours than subtract a mean and divide by a standard deviation.
    """
    require(channels in (1, 3), f"expected {name} to take 1 or 3 channels, got {channels}{_REMEDY}")
    pictures = [_picture(sides, channels) for sides in _SIDES]
    results = [_run(transform, picture, name, channels) for picture in pictures]
    if ours is not None and all(map(functools.partial(_same, ours), pictures, results)):
        return ours
    shapes = {tuple(result.shape) for result in results}
    require(
        len(shapes) == 1,
        f"expected the preprocessing of {name} to give one size of pictures, got "
        f"{' and '.join(map(str, sorted(shapes)))}{_REMEDY}",
    )
    mean, std = _normalisation(transform, results, name, channels)
    _, height, width = results[0].shape
    _warn_of_channel_order(transform, name, channels)
    return Preprocessing((height, width), None, mean, std, "", transform)


_REMEDY = "; wrap the network in unilens.PixelClassifier and load it by py:"


def _candidate(processor: Any, channels: int) -> Preprocessing | None:
    """Return the preprocessing of a processor with the usual settings; None for others."""
    try:
        cropped = getattr(processor, "do_center_crop", False)
        size, crop = dict(processor.size), processor.crop_size if cropped else None
        resize = size.get("shortest_edge") or (size["height"], size["width"])
        normalised = processor.do_normalize
        kind = Image.Resampling(int(processor.resample))
        if kind is Image.Resampling.NEAREST:  # libraries round differently, at some sizes alone
            return None
        return Preprocessing(
            size=(crop["height"], crop["width"]) if crop else _pair(resize),
            resize=resize,
            mean=tuple(processor.image_mean) if normalised else (0.0,) * channels,
            std=tuple(processor.image_std) if normalised else (1.0,) * channels,
            interpolation=kind.name.lower(),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _pair(resize: int | tuple[int, int]) -> tuple[int, int]:
    return (resize, resize) if isinstance(resize, int) else resize


@dataclass(frozen=True)
class _Processor:
    """An image processor of transformers, as a transform."""

    processor: Any

    def __call__(self, image: Image.Image) -> Tensor:
        result = dict(self.processor(images=image, return_tensors="pt"))
        values = result.get("pixel_values")
        if not isinstance(values, Tensor) or values.ndim != 4 or len(values) != 1:
            actual = ", ".join(f"{key} {tuple(value.shape)}" for key, value in result.items())
            raise UnilensError(f"expected pixel_values of shape (1, C, H, W), got {actual}")
        return values[0]


def _same(ours: Preprocessing, picture: Image.Image, theirs: Tensor) -> bool:
    """Whether a preprocessing gives the same pixels as another library."""
    mean, std = (
        torch.tensor(values, dtype=torch.float32).view(-1, 1, 1) for values in (ours.mean, ours.std)
    )
    try:
        pixels, restored = ours(picture), theirs * std + mean
    except (TypeError, ValueError, RuntimeError):  # settings that ours does not have
        return False
    return pixels.shape == restored.shape == theirs.shape and bool(
        (pixels - restored).abs().max() <= TOLERANCE
    )


def _picture(sides: tuple[int, int], channels: int) -> Image.Image:
    """Return a picture of random colours from a fixed seed."""
    width, height = sides
    values = numpy.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    return _in_channels(Image.fromarray(values), channels)


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    return image.convert("L") if channels == 1 else image


def _run(transform: Transform, picture: Image.Image, name: str, channels: int) -> Tensor:
    try:
        result = transform(picture)
    except Exception as error:  # processors raise whatever they like
        raise UnilensError(
            f"the preprocessing of {name} fails on a photograph: {first_line(error)}{_REMEDY}"
        ) from error
    shape = tuple(getattr(result, "shape", ()))
    if not isinstance(result, Tensor) or not result.is_floating_point() or len(shape) != 3:
        raise UnilensError(
            f"expected the preprocessing of {name} to give a picture (C, H, W) of floats, got "
            f"{type(result).__name__} {shape}{_REMEDY}"
        )
    require(
        shape[0] == channels and bool(result.isfinite().all()),
        f"expected the preprocessing of {name} to give {channels} channels of finite values, got "
        f"{shape}{_REMEDY}",
    )
    return result


def _normalisation(
    transform: Transform, results: list[Tensor], name: str, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, from the results for black and for white.

    Raises where a grey or the two pictures do not follow from them.
    """
    black, grey, white = (
        _centre(transform, (level,) * 3, name, channels) for level in (0, 128, 255)
    )
    step = white - black
    lows, highs = (
        torch.stack([extreme(result.double().flatten(1), 1) for result in results])
        for extreme in (torch.amin, torch.amax)
    )
    affine = (
        bool((step > 0).all())
        and bool(((grey - black) / step - 128 / 255).abs().max() < _EXACT)
        and bool(((lows - black) / step).min() > -_EXACT)
        and bool(((highs - black) / step).max() < 1 + _EXACT)
    )
    require(
        affine,
        f"the preprocessing of {name} does more to colours than subtract a mean and divide by a "
        f"standard deviation, which cannot be undone{_REMEDY}",
    )
    return tuple((0.0 - black / step).tolist()), tuple((1 / step).tolist())


_EXACT = 1e-3


def _centre(transform: Transform, colour: tuple[int, ...], name: str, channels: int) -> Tensor:
    """Return the transformed centre of a picture of one colour, `(C,)`, in float64."""
    flat = _in_channels(Image.new("RGB", _SIDES[0], colour), channels)
    result = _run(transform, flat, name, channels).double()
    return result[:, result.shape[1] // 2, result.shape[2] // 2]


def _warn_of_channel_order(transform: Transform, name: str, channels: int) -> None:
    if channels == 3:
        red, black = (_centre(transform, (level, 0, 0), name, channels) for level in (255, 0))
        if int((red - black).argmax()) == 2:
            warnings.warn(
                f"{name} takes blue first: pictures of its inputs have red and blue exchanged",
                UnilensWarning,
                stacklevel=2,
            )

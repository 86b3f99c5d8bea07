"""A network trained on drawn birds whose classes differ in their parts.

After FunnyBirds (Hesse et al. 2023, arXiv 2308.06248): a bird has a beak, an eye, a wing, a tail
and feet, each in one of several shapes or colours, and a class is a combination of them. It is
trained on birds that lack parts at random, so that a bird without a part is an image like those it
has seen, and the score that a part is worth is measured by drawing the bird anew without it.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from ..classifier import PixelClassifier, Preprocessing
from .example import Example
from .training import trained

SIDE, _SCALE = 64, 2
"""Of an image in pixels, and how much larger it is drawn."""
PARTS = ("beak", "eye", "wing", "tail", "feet")
CLASSES = {
    "finch": (0, 0, 0, 0, 0),
    "parrot": (1, 1, 1, 1, 0),
    "heron": (2, 0, 2, 0, 1),
    "owl": (1, 2, 0, 2, 1),
    "crow": (0, 1, 2, 2, 0),
    "duck": (2, 2, 1, 1, 1),
}
"""The kind of each part, by class."""
_EXAMPLES, _TRAINED_ON = 60, 2000
_RED, _YELLOW, _BLUE, _FEET = "#d83a2e", "#f2b632", "#2f6fd0", "#e06010"
_EYES = ("black", "#c01020", "#1090c0")
_POLYGONS = {
    "beak": (
        (_BLUE, (1.25, -1.05, 1.75, -0.85, 1.25, -0.65)),
        (_RED, (1.15, -1.1, 1.7, -0.9, 1.5, -0.4, 1.15, -0.6)),
        (_YELLOW, (1.25, -1.0, 2.3, -0.9, 1.25, -0.8)),
    ),
    "wing": (
        (_YELLOW, (-0.8, -0.3, 0.4, -0.2, -0.2, 0.5)),
        (_BLUE, (-0.6, -0.4, 0.3, -0.4, 0.4, 0.2, -0.5, 0.4)),
        (_RED, (-0.9, 0.3, -0.3, -0.5, 0.5, 0.0)),
    ),
    "tail": (
        (_RED, (-0.7, -0.1, -1.9, -0.8, -1.7, 0.1)),
        (_YELLOW, (-0.7, 0.0, -1.9, -0.2, -2.0, 0.5, -1.6, 0.7)),
        (_BLUE, (-0.6, -0.2, -1.3, -1.3, -1.5, -0.5, -2.0, -0.4, -0.8, 0.2)),
    ),
}
"""Colour and corners of each kind of a part, x and y about the body in units of half its width."""


@dataclass(frozen=True)
class Bird:
    """A bird to be drawn.

    Attributes:
        name: of its class.
        centre: of its body, in units of the side.
        size: of its body, relative.
        sky: the colour behind it, RGB.
        body: its body's colour, RGB.
    """

    name: str
    centre: tuple[float, float]
    size: float
    sky: tuple[int, int, int]
    body: tuple[int, int, int]


def draw(bird: Bird, missing: Collection[str] = ()) -> Image.Image:
    """Return a bird without the missing parts."""
    image = Image.new("RGB", (SIDE * _SCALE,) * 2, bird.sky)
    pen = ImageDraw.Draw(image)
    kinds = dict(zip(PARTS, CLASSES[bird.name], strict=True))
    shown = {part: kind for part, kind in kinds.items() if part not in missing}
    _draw_polygon(pen, bird, "tail", shown)
    if "feet" in shown:
        _draw_feet(pen, bird, flat=shown["feet"] == 1)
    pen.ellipse(_at(bird, -1, -0.75, 1, 0.75), fill=bird.body)
    pen.ellipse(_at(bird, 0.45, -1.35, 1.35, -0.45), fill=bird.body)
    _draw_polygon(pen, bird, "wing", shown)
    _draw_polygon(pen, bird, "beak", shown)
    if "eye" in shown:
        pen.ellipse(_at(bird, 0.75, -1.15, 1.15, -0.75), fill="white")
        pen.ellipse(_at(bird, 0.83, -1.07, 1.07, -0.83), fill=_EYES[shown["eye"]])
    return image.resize((SIDE, SIDE), Image.Resampling.BOX)


def _draw_polygon(
    pen: ImageDraw.ImageDraw, bird: Bird, part: str, shown: Mapping[str, int]
) -> None:
    """Draw a tail, wing or beak, where it is shown."""
    if part in shown:
        colour, points = _POLYGONS[part][shown[part]]
        pen.polygon(_at(bird, *points), fill=colour)


def _draw_feet(pen: ImageDraw.ImageDraw, bird: Bird, flat: bool) -> None:
    for leg in (-0.3, 0.3):
        pen.line(_at(bird, leg, 0.6, leg + 0.3 * flat, 1.5), fill=_FEET, width=2 * _SCALE)
        if flat:
            pen.ellipse(_at(bird, leg, 1.35, leg + 0.6, 1.7), fill=_FEET)


def _at(bird: Bird, *points: float) -> list[tuple[float, float]]:
    """Return points about the body, in units of half its width, in pixels of the drawing."""
    x, y = bird.centre
    unit, side = 0.22 * bird.size, SIDE * _SCALE
    pairs = zip(points[::2], points[1::2], strict=True)
    return [(side * (x + unit * right), side * (y + unit * down)) for right, down in pairs]


def network() -> PixelClassifier:
    """Return the network, trained in seconds."""
    layers = nn.Sequential(*_layers())
    layers.load_state_dict(_trained().state_dict())
    plain = Preprocessing((SIDE, SIDE), SIDE, (0.0,) * 3, (1.0,) * 3)
    return PixelClassifier(
        layers.requires_grad_(False), plain, tuple(CLASSES), origin="trained here"
    )


@functools.cache
def examples() -> tuple[Example, ...]:
    """Return whole birds that the network has not seen, and each without one part."""
    random = numpy.random.default_rng(1)
    birds = [_random_bird(random) for _ in range(_EXAMPLES)]
    return tuple(
        Example(draw(bird), bird.name, without=tuple(draw(bird, (part,)) for part in PARTS))
        for bird in birds
    )


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Return images as `(N, 3, SIDE, SIDE)` in [0, 1]."""
    values = numpy.stack([numpy.asarray(image) for image in images])
    return torch.from_numpy(values).movedim(-1, 1).float() / 255


def _random_bird(random: numpy.random.Generator) -> Bird:
    name = str(random.choice(list(CLASSES)))
    x, y = random.uniform((0.44, 0.47), (0.54, 0.6))
    sky, body = random.integers((170,) * 3, 240), random.integers((80,) * 3, 150)
    return Bird(name, (x, y), random.uniform(0.75, 1), tuple(sky.tolist()), tuple(body.tolist()))


@functools.cache
def _trained() -> nn.Module:
    random = numpy.random.default_rng(0)
    birds = [_random_bird(random) for _ in range(_TRAINED_ON)]
    lacking = [[part for part in PARTS if random.random() < 0.3] for _ in birds]
    images = to_tensor([draw(*pair) for pair in zip(birds, lacking, strict=True)])
    labels = torch.tensor([list(CLASSES).index(bird.name) for bird in birds])
    return trained(_layers, images, labels)


def _layers() -> tuple[nn.Module, ...]:
    return (
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 64, 64), nn.ReLU(), nn.Linear(64, len(CLASSES))),
    )

"""A convolutional network with weights set by hand: a class is a texture at a place.

An image has grey noise and three textured squares of one size and contrast, each in a cell of a
grid of 4 x 4. One is the reason: vertical or horizontal stripes in the left or the right half of
the upper three rows, which makes four classes. Two are distractors: diagonal stripes, to which the
filters give exactly 0, and the other class's stripes in the lowest row, whose weights are 0.
"""

from __future__ import annotations

import functools
import itertools

import numpy
import torch
from torch import Tensor, nn

from ..classifier import PixelClassifier, Preprocessing
from .example import Array, Example, box_mask, to_image

SIDE, CELL, PERIOD = 64, 16, 4
_CONTRAST, _NOISE = 0.4, 0.1
"""Of a texture and of the background, about grey."""
_THRESHOLD = 0.15
"""Of a filter's response: that to noise is at most `_NOISE`, that to its stripes `_CONTRAST`."""
_EXAMPLES = 60
_CLASSES = tuple(itertools.product(("vertical", "horizontal"), ("left", "right")))
_STRIPE = numpy.array([1.0, 1.0, -1.0, -1.0])


def network() -> PixelClassifier:
    """Return the network.

    Filters of 4 x 4 pixels at stride 4 see one cell each, so that what the mask leaves out adds
    exactly 0 to every logit. Their responses above the threshold are averaged over each cell, and
    the logit of a class sums its texture over its cells.
    """
    filters = nn.Conv2d(3, 4, PERIOD, PERIOD)
    cells = nn.Conv2d(4, 2, CELL // PERIOD, CELL // PERIOD)
    head = nn.Linear(2 * 16, 4)
    stripes = torch.from_numpy(_STRIPE).float()
    vertical = stripes.expand(PERIOD, PERIOD) / (3 * PERIOD**2)
    signed = torch.stack([vertical, -vertical, vertical.T, -vertical.T])
    with torch.no_grad():
        filters.weight.copy_(signed.unsqueeze(1).expand(-1, 3, -1, -1))
        filters.bias.fill_(-_THRESHOLD)  # type: ignore[union-attr]
        cells.weight.zero_()
        cells.bias.zero_()  # type: ignore[union-attr]
        for texture in range(2):
            cells.weight[texture, 2 * texture : 2 * texture + 2] = (PERIOD / CELL) ** 2
        head.weight.copy_(torch.stack([_places(*names) for names in _CLASSES]))
        head.bias.zero_()
    layers = nn.Sequential(filters, nn.ReLU(), cells, nn.ReLU(), nn.Flatten(), head)
    plain = Preprocessing((SIDE, SIDE), SIDE, (0.0,) * 3, (1.0,) * 3)
    labels = [" ".join(names) for names in _CLASSES]
    return PixelClassifier(layers.requires_grad_(False), plain, labels, origin="set by hand")


def _places(texture: str, half: str) -> Tensor:
    """Return the weights `(32,)` of a class: 20 where its texture counts, 0 elsewhere."""
    weights = torch.zeros(2, 4, 4)
    columns = slice(0, 2) if half == "left" else slice(2, 4)
    weights[int(texture == "horizontal"), :3, columns] = 20.0
    return weights.flatten()


@functools.cache
def examples() -> tuple[Example, ...]:
    """Return the images, as many of each class."""
    return tuple(_example(number) for number in range(_EXAMPLES))


def _example(number: int) -> Example:
    random = numpy.random.default_rng(number)
    texture, half = _CLASSES[number % len(_CLASSES)]
    other = "vertical" if texture == "horizontal" else "horizontal"
    row, column = int(random.integers(3)), int(random.integers(2)) + 2 * (half == "right")
    free = [place for place in itertools.product(range(3), range(4)) if place != (row, column)]
    values = 0.5 + random.uniform(-_NOISE, _NOISE, (SIDE, SIDE))
    distractors = ("diagonal", *free[random.integers(len(free))]), (other, 3, random.integers(4))
    for name, down, across in ((texture, row, column), *distractors):
        square = 0.5 + _CONTRAST * random.choice([-1, 1]) * _stripes(name)
        top, left = CELL * down, CELL * across
        values[top : top + CELL, left : left + CELL] = square
    mask = box_mask(SIDE, (CELL * row, CELL * column), CELL)
    return Example(to_image(values), f"{texture} {half}", mask)


def _stripes(name: str) -> Array:
    """Return stripes of -1 and 1 `(CELL, CELL)`."""
    down, across = numpy.mgrid[:CELL, :CELL]
    phase = {"vertical": across, "horizontal": down, "diagonal": down + across}[name]
    return _STRIPE[phase % PERIOD]

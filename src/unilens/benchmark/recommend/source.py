"""The model and the photographs of a race, given by name or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..._validation.inputs import check_inputs
from ..._validation.models import check_model
from ...errors import UnilensError, require
from ...models import PixelClassifier, Preprocessing, load_model
from ..data import Item, open_source
from ..plan import Plan, make_plan
from .purposes import CONTROLS, RACED, STABILITY

_GIVEN = "py:given:model"
"""Name of a model that has none, in the plan of a race."""
_DTYPES = {torch.float32: "float32", torch.float64: "float64"}


@dataclass(frozen=True)
class Source:
    """A model and photographs.

    Attributes:
        classifier: the model.
        name: in the plan.
        shown: for readers.
        items: the photographs.
        data: where they are.
        by_name: whether the command line can load both.
        random_weights: whether the model is untrained.
    """

    classifier: PixelClassifier
    name: str
    shown: str
    items: Sequence[Item]
    data: str
    by_name: bool
    random_weights: bool

    @property
    def side(self) -> int:
        """The shorter side of the model's input, in pixels."""
        return min(self.classifier.preprocessing.size)

    def plan(self, methods: Sequence[str], seed: int, device: str) -> Plan:
        """Return the plan of all rows that a race can have."""
        data = {"source": self.data} if self.by_name else {}
        return make_plan(
            {
                "models": [self.name],
                "methods": [*CONTROLS, *methods],
                "metrics": [name for purpose in (*RACED, STABILITY) for name in purpose.metrics],
                "data": data,
                "seed": seed,
                "device": device if self.by_name else str(self.classifier.mean.device),
                "dtype": _DTYPES.get(self.classifier.mean.dtype, "float32"),
                "random_weights": self.random_weights,
                "pictures": 0,
            },
            "the race",
        )


def source_of(
    model: str | nn.Module,
    images: str | Path | Tensor,
    device: str,
    random_weights: bool,
    *,
    keeps: bool,
) -> Source:
    """Return a model and photographs, as `recommend` takes them.

    Args:
        model: a name or a module.
        images: where the photographs are, or a tensor.
        device: where a model given by name runs.
        random_weights: whether a model given by name is untrained.
        keeps: whether rows are kept in a folder.

    Raises:
        UnilensError: they do not fit each other.
    """
    named, stored = isinstance(model, str), not isinstance(images, Tensor)
    require(
        not keeps or (named and stored),
        "expected a model by name and a folder of photographs with folder=, got a module or a "
        "tensor; leave folder= out, or name both",
    )
    items: Sequence[Item] = [] if isinstance(images, Tensor) else open_source(str(images))
    if named:
        loaded = load_model(str(model), pretrained=not random_weights, device=device)
    else:
        require(not random_weights, "expected random_weights of a model by name, got a module")
        check_model(model)
        loaded = model  # type: ignore[assignment]
    if stored:
        require(
            isinstance(loaded, PixelClassifier),
            f"expected a PixelClassifier for a folder of photographs, got {type(model).__name__}; "
            "wrap it, which says how photographs are preprocessed, or pass a tensor",
        )
        classifier = loaded
    else:
        classifier, items = _of_tensor(loaded, images)  # type: ignore[arg-type]
    name = str(model) if named else _GIVEN
    shown = str(model) if named else getattr(model, "name", "") or type(model).__name__
    data = str(images) if stored else f"a tensor of {len(items)} images"
    return Source(classifier, name, shown, items, data, named and stored, random_weights)


@dataclass(frozen=True)
class _Tensors:
    """Images that are in memory."""

    images: Tensor

    def load(self, name: str) -> Any:
        """Return the image `(C, H, W)` of that number."""
        return self.images[int(name)]


class _GivenModel(PixelClassifier):
    """A module that is shown images as they are."""

    def preprocess(self, image: Any, *, value_range: Any = None) -> Tensor:
        """Return the image `(C, H, W)`."""
        if not isinstance(image, Tensor):
            raise UnilensError(
                "expected references of a module as a tensor, got photographs; leave the method "
                "out, or pass a PixelClassifier and a folder"
            )
        return image


def _of_tensor(model: nn.Module, images: Tensor) -> tuple[PixelClassifier, list[Item]]:
    """Return a module as a classifier of a tensor's images, and the images."""
    example = next(iter((*model.parameters(), *model.buffers())), torch.zeros(()))
    check_inputs(images, example.device, model)
    require(
        images.ndim == 4,
        f"expected images of shape (B, C, H, W), got {tuple(images.shape)}",
    )
    channels, *size = images.shape[1:]
    plain = Preprocessing((size[0], size[1]), None, (0.0,) * channels, (1.0,) * channels)
    classifier = _GivenModel(model, plain, getattr(model, "labels", ()))
    dtype = example.dtype if example.dtype in _DTYPES else torch.float32
    classifier.mean, classifier.std = (
        value.to(example.device, dtype) for value in (classifier.mean, classifier.std)
    )
    origin: Any = _Tensors(images.detach().cpu().to(dtype))
    return classifier, [Item(f"{n}", None, origin) for n in range(len(images))]

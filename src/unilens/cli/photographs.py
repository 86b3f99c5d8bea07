"""What the commands on photographs share: their inputs, their model and their methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_seed
from ..errors import UnilensError, require
from ..explainer import Method
from ..models import PixelClassifier, load_model, samples
from ..models.bit_depth import check_range
from ..models.images import open_image
from ..output.text import printable
from ..specs import Spec, build_method
from .output import show, waiting

Range = tuple[float, float] | None


@dataclass(frozen=True)
class Source:
    """A photograph that is read when its turn comes.

    Attributes:
        name: what its files are called.
        label: its path, or its name among the samples.
        path: None for a sample.
    """

    name: str
    label: str
    path: Path | None = None

    def load(self, value_range: Range = None) -> Image.Image:
        """Read the photograph, as RGB or, with transparency, as RGBA."""
        source = samples[self.label]() if self.path is None else self.path
        return open_image(source, value_range=value_range)


@dataclass(frozen=True)
class Setup:
    """A loaded model with the methods that explain it.

    Attributes:
        classifier: the model.
        evaluator: runs it.
        explainers: methods by the text that names them.
        target: index of the class to explain; None for the predicted one.
        value_range: the pixel values that are black and white.
        device: where the model runs.
        seed: of everything random.
    """

    classifier: PixelClassifier
    evaluator: Evaluator
    explainers: Mapping[str, Method]
    target: int | None
    value_range: Range
    device: torch.device
    seed: int

    def pixels(self, source: Source) -> Tensor:
        """Return a photograph as the model's input `(1, C, H, W)`."""
        pixels = self.classifier.preprocess(source.load(self.value_range))
        return pixels.to(self.device)[None]


def read_sources(images: list[Path] | None, names: list[str] | None) -> list[Source]:
    """Return the named photographs, files first; raise if there are none."""
    sources = [Source(path.stem, printable(str(path)), path) for path in images or []]
    for name in names or []:
        samples[name]
        sources.append(Source(name, name))
    require(bool(sources), "expected an image or --sample NAME; try: unilens list samples")
    return sources


def read_range(text: str | None) -> Range:
    """Return the range `LOW,HIGH` of pixel values."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(","))
        return check_range((low, high))
    except ValueError:
        raise UnilensError(
            f"expected --range LOW,HIGH, two numbers, the smaller first, got {text!r}"
        ) from None


def read_device(name: str) -> torch.device:
    """Return the device of that name."""
    try:
        return torch.device(name)
    except RuntimeError:
        raise UnilensError(f"expected --device cpu, cuda, cuda:0 or mps, got {name!r}") from None


def load_setup(
    model: str,
    specs: Mapping[str, Spec],
    *,
    random_weights: bool,
    device: str,
    target: str | None,
    outputs: str | None,
    value_range: Range,
    seed: int,
) -> Setup:
    """Load a model and build its methods from what the command line says."""
    check_seed(seed)
    with waiting(f"loading {model}"):
        place = read_device(device)
        classifier = load_model(model, pretrained=not random_weights, device=place)
        return Setup(
            classifier,
            Evaluator(classifier, outputs=outputs),
            {name: build_method(spec, classifier, value_range) for name, spec in specs.items()},
            None if target is None else _class_index(classifier, target),
            value_range,
            place,
            seed,
        )


def show_preprocessing(classifier: PixelClassifier) -> None:
    """Print what a model of the user's own is shown."""
    if classifier.name.startswith("py:"):
        show(
            f"{classifier.name} is shown {classifier.preprocessing} (to change that, return a "
            "unilens.models.PixelClassifier)",
            highlight=False,
        )


def _class_index(classifier: PixelClassifier, target: str) -> int:
    """Return the index of a class given as a label or a number."""
    index = classifier.class_index(target)
    count = len(classifier.labels)
    require(
        not count or index < count,
        f"expected --target between 0 and {count - 1}, or a label, got {target}",
    )
    return index

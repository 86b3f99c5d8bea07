"""What the commands on photographs share: their model, its methods and their targets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._catalogue import check_model
from ..errors import UnilensError, require
from ..specs import Spec, build_method
from .output import show, waiting
from .sources import Range, Source

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from .._engine.evaluator import Evaluator
    from ..explainer import Method
    from ..models import PixelClassifier

PREDICTED = "predicted"


@dataclass(frozen=True)
class Setup:
    """A loaded model with the methods that explain it.

    Attributes:
        classifier: the model.
        evaluator: runs it.
        explainers: methods by the text that names them.
        targets: indices of the classes to explain; None for the predicted one.
        value_range: the pixel values that are black and white.
        device: where the model runs.
        seed: of everything random.
    """

    classifier: PixelClassifier
    evaluator: Evaluator
    explainers: Mapping[str, Method]
    targets: Sequence[int | None]
    value_range: Range
    device: torch.device
    seed: int

    def pixels(self, source: Source) -> Tensor:
        """Return a photograph as the model's input `(1, C, H, W)`."""
        pixels = self.classifier.preprocess(source.load(self.value_range))
        return pixels.to(self.device)[None]

    def file_name(self, source: Source, target: int | None) -> str:
        """Return what the files of a photograph are called; with several targets, with its own."""
        if len(self.targets) == 1:
            return source.name
        label = PREDICTED if target is None else self.classifier.label(target)
        return "-".join([source.name, *re.findall(r"\w+", label)])


def read_device(name: str) -> torch.device:
    """Return the device of that name."""
    import torch

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
    targets: Sequence[str] | None,
    outputs: str | None,
    value_range: Range,
    seed: int,
) -> Setup:
    """Load a model and build its methods from what the command line says."""
    check_model(model)
    from .._engine.evaluator import Evaluator
    from .._validation.inputs import check_seed
    from ..models import load_model

    check_seed(seed)
    with waiting(f"loading {model}"):
        place = read_device(device)
        classifier = load_model(model, pretrained=not random_weights, device=place)
        return Setup(
            classifier,
            Evaluator(classifier, outputs=outputs),
            {name: build_method(spec, classifier, value_range) for name, spec in specs.items()},
            list(dict.fromkeys(_class_indices(classifier, targets or [PREDICTED]))),
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


def _class_indices(classifier: PixelClassifier, targets: Sequence[str]) -> Iterator[int | None]:
    """Yield the indices of classes given as labels, which may hold commas, or as numbers."""
    from ..models.labels import classes_by_name, fold

    known, count = classes_by_name(classifier.labels), len(classifier.labels)
    for text in targets:
        for name in [text] if fold(text) in known else text.split(","):
            if name.strip() == PREDICTED:
                yield None
                continue
            index = classifier.class_index(name.strip())
            require(
                not count or index < count,
                f"expected --target between 0 and {count - 1}, or a label, got {name}",
            )
            yield index

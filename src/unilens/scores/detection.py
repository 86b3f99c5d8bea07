"""The score of a detector: how well any of its detections matches a box of a class (D-RISE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._validation.settings import CountOrZero
from ..errors import NotApplicableError, UnilensError, require
from .base import OutputScore, as_floats, as_tensor, at_least_float32, row_of
from .detections import HEADS, Detections, Head, head_of, read_detections

_SAME_EDGE = 1e-5


@dataclass(frozen=True, eq=False)
class Detection(OutputScore):
    """The best likeness of any detection to a box; see `detection`."""

    box: Tensor | Literal["predicted"] = "predicted"
    target: CountOrZero | None = None
    head: Head = "auto"

    def __post_init__(self) -> None:
        require(
            self.head in HEADS, f"expected head to be one of {', '.join(HEADS)}, got {self.head!r}"
        )
        if isinstance(self.box, str):
            require(
                self.box == "predicted",
                f"expected box to be 'predicted' or left, top, right, bottom, got {self.box!r}",
            )
            return
        box = as_floats(as_tensor("box", self.box))
        valid = box.ndim in (1, 2) and box.shape[-1:] == (4,) and bool(box.isfinite().all())
        require(
            valid and bool((box[..., 2:] > box[..., :2]).all()),
            "expected box as left, top, right, bottom, with left < right and top < bottom, or "
            f"(B, 4) for each input, got {box.tolist() if box.numel() <= 8 else tuple(box.shape)}",
        )
        require(
            self.target is not None, "expected target, the class of the box, with box=; got None"
        )
        object.__setattr__(self, "box", box)

    def prepared(self, outputs: Callable[[], Any], model: nn.Module) -> Detection:
        """Return the score with what the model's logits are."""
        head: Head = head_of(model) if self.head == "auto" else self.head
        return dataclasses.replace(self, head=head)

    def for_input(self, row: int, count: int, outputs: Callable[[], Any]) -> Detection:
        """Return the score of one input, with its box; "predicted" takes the surest detection."""
        if isinstance(self.box, Tensor):
            box = row_of("box", self.box, row, count, 1)
            return self if box is self.box else dataclasses.replace(self, box=box)
        found = read_detections(outputs(), self.head)[0]
        confidence = found.class_probability(self.target)
        confidence = confidence.where(found.has_area, -torch.inf) if len(confidence) else confidence
        if not (confidence > -torch.inf).any():
            raise NotApplicableError(
                f"expected a detection in input {row}, got none; pass box= and target="
            )
        best = int(confidence.argmax())
        target = found.label(best) if self.target is None else self.target
        return dataclasses.replace(self, box=found.boxes[best].detach().clone(), target=target)

    def __call__(self, outputs: Any, /) -> Tensor:
        """Return the best likeness `(M,)`, each in [0, 1]."""
        detections = read_detections(outputs, self.head)
        if isinstance(self.box, str) or self.target is None:
            raise UnilensError(
                "expected box= and target= to score outputs by themselves, got box='predicted'"
            )
        shared = self.box.ndim == 1 or len(self.box) == 1
        boxes = self.box.expand(len(detections), 4) if shared else self.box
        require(
            len(boxes) == len(detections),
            f"expected box for {len(detections)} inputs, as many as there are, got {len(boxes)}",
        )
        pairs = zip(detections, boxes, strict=True)
        return torch.stack([likeness(found, box, self.target) for found, box in pairs])


def likeness(found: Detections, box: Tensor, target: int) -> Tensor:
    """Return the largest overlap x class x objectness of any detection `()`; 0 where none is."""
    found.check_units(box)
    each = overlap(found.boxes, box) * found.likeness_of_class(target)
    return each.max() if len(each) else found.boxes.sum() + found.scores.sum()


def overlap(boxes: Tensor, box: Tensor) -> Tensor:
    """Return the intersection over union `(N,)` of boxes `(N, 4)` and one box `(4,)`.

    Edges within 1e-5 of the box's sides count as its own. The overlap has a kink where they
    are equal, as for a box that the model itself gave: the slope there is 0, and not decided by
    rounding.

    >>> overlap(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([1.0, 0.0, 3.0, 2.0]))
    tensor([0.3333])
    """
    boxes = at_least_float32(boxes)
    box = box.to(boxes)
    sides = (box[2:] - box[:2]).repeat(2)
    boxes = torch.where((boxes - box).abs() <= _SAME_EDGE * sides, box, boxes)
    low, high = torch.maximum(boxes[:, :2], box[:2]), torch.minimum(boxes[:, 2:], box[2:])
    shared = (high - low).clamp_min(0).prod(1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
    return shared / (areas - shared)


def detection(
    box: Tensor | Literal["predicted"] = "predicted",
    target: int | None = None,
    *,
    head: Head = "auto",
) -> Detection:
    """Return the score of a detector: how well any of its detections matches a box of a class.

    The likeness of a detection is overlap x class x objectness: the intersection over union with
    the box, the cosine of its class probabilities and the class, and its confidence that there is
    an object (D-RISE). The score is the largest likeness, 0 where nothing is detected. UNI unlearns
    the score itself.

    Works with what torchvision's and transformers' detectors return, with lists of dictionaries or
    objects of "boxes", "scores" (or "conf") and "labels" (or "cls"), and with the tensors
    `(B, 4 + K, N)` or `(B, N, 6)` of YOLO networks. A torchvision detector gives no class
    probabilities: the cosine is 1 for the label and 0 for others, the objectness its score. A
    sigmoid head has none of objects: the largest class probability stands for it.

    Args:
        box: left, top, right, bottom, as the detector gives boxes: in pixels, or for DETR and its
            like in fractions of width and height; `(4,)` for all inputs or `(B, 4)` for each.
            "predicted" takes the surest detection of each input, of the target where one is given.
        target: class index of the box.
        head: what the logits of a DETR are: "softmax", with "no object" as the last class, or
            "sigmoid"; "auto" to take that from the model's configuration.

    References:
        Petsiuk et al. 2021, arXiv 2006.03204, section 4.2.

    >>> outputs = [{"boxes": torch.tensor([[0.0, 0.0, 2.0, 2.0]]), "labels": torch.tensor([3]),
    ...             "scores": torch.tensor([0.8])}]
    >>> detection(torch.tensor([0.0, 0.0, 2.0, 1.0]), 3)(outputs)
    tensor([0.4000])
    """
    return Detection(box, target, head)

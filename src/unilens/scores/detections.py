"""What detectors return, read as boxes with class probabilities and objectness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..errors import UnilensError, require

Head = Literal["auto", "softmax", "sigmoid"]
HEADS = ("auto", "softmax", "sigmoid")
"""How a DETR's logits become class probabilities."""

_BOXES = ("boxes", "xyxy", "bboxes")
_SCORES = ("scores", "conf", "confidence")
_LABELS = ("labels", "cls", "classes", "class")
_HEAD_LAYERS = ("class_labels_classifier", "class_embed")
_ROWS_END_TO_END = 6
"""Left, top, right, bottom, confidence, class."""


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections in one image.

    Attributes:
        boxes: `(N, 4)`, left, top, right, bottom.
        scores: `(N,)`, objectness.
        labels: `(N,)`; None where `probabilities` has the classes.
        probabilities: `(N, K)`; None where there are labels.
        fractions: whether boxes are fractions of width and height.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor | None = None
    probabilities: Tensor | None = None
    fractions: bool = False

    @property
    def has_area(self) -> Tensor:
        """Which boxes are not empty `(N,)`."""
        return (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)

    def likeness_of_class(self, target: int) -> Tensor:
        """Return the cosine of class probabilities and the class, times the objectness `(N,)`."""
        if self.probabilities is None:
            return (cast(Tensor, self.labels) == target).to(self.scores) * self.scores
        self._check_class(target)
        norm = self.probabilities.norm(dim=1).clamp_min(torch.finfo(self.scores.dtype).tiny)
        return self.probabilities[:, target] / norm * self.scores

    def class_probability(self, target: int | None) -> Tensor:
        """Return how sure each detection is `(n,)`, of a class where one is given."""
        if self.probabilities is not None:
            if target is None:
                return self.probabilities.amax(1)
            self._check_class(target)
            return self.probabilities[:, target]
        if target is None:
            return self.scores
        of_class = cast(Tensor, self.labels) == target
        return self.scores.where(of_class, -torch.inf) if of_class.any() else self.scores[:0]

    def label(self, row: int) -> int:
        """Return the class of a detection."""
        if self.probabilities is not None:
            return int(self.probabilities[row].argmax())
        return int(cast(Tensor, self.labels)[row])

    def check_units(self, box: Tensor) -> None:
        """Raise where a box is in pixels and the detections are in fractions of the image."""
        require(
            not self.fractions or float(box.max()) <= 2,
            "expected box in fractions of width and height, as the detector gives boxes, got "
            f"{[round(value, 3) for value in box.tolist()]}; divide it by the image's width and "
            "height",
        )

    def _check_class(self, target: int) -> None:
        count = cast(Tensor, self.probabilities).shape[1]
        require(
            target < count, f"expected a class from 0 to {count - 1} for detection, got {target}"
        )


def read_detections(outputs: Any, head: Head) -> list[Detections]:
    """Return the detections in each image of what a detector returns.

    Raises:
        UnilensError: it is in no format that is known.
    """
    logits, boxes = _entry(outputs, ("logits", "pred_logits")), _entry(outputs, ("pred_boxes",))
    if isinstance(logits, Tensor) and isinstance(boxes, Tensor):
        return _of_queries(logits, boxes, head, _entry(outputs, ("pred_logits",)) is not None)
    if isinstance(outputs, (tuple, list)) and outputs and isinstance(outputs[0], Tensor):
        first, second = outputs[0], outputs[1] if len(outputs) > 1 else None
        if isinstance(second, Tensor) and second.shape == (*first.shape[:-1], 4):
            return _of_queries(first, second, head, False)
        outputs = first
    if isinstance(outputs, Tensor):
        return _of_tensor(outputs)
    if isinstance(outputs, (tuple, list)) and outputs:
        return [_of_image(image) for image in outputs]
    raise _unknown(outputs)


def head_of(model: nn.Module) -> Head:
    """Return how a transformers detector's logits become probabilities, by its configuration.

    DETR, YOLOS and Table Transformer have one logit more than labels, for "no object".
    """
    for module in model.modules():
        heads = (getattr(module, name, None) for name in _HEAD_LAYERS)
        classifier = next((head for head in heads if isinstance(head, nn.Module)), None)
        labels = getattr(getattr(module, "config", None), "num_labels", None)
        if classifier is None or labels is None:
            continue
        size = [
            layer.out_features for layer in classifier.modules() if isinstance(layer, nn.Linear)
        ]
        if size:
            return "softmax" if size[-1] == labels + 1 else "sigmoid"
    return "auto"


def _of_queries(logits: Tensor, boxes: Tensor, head: Head, original: bool) -> list[Detections]:
    """Return detections of a DETR: logits `(B, N, K)`, boxes `(B, N, 4)` as centre and size."""
    if head == "auto" and not original:
        raise UnilensError(
            "expected head='softmax', for logits whose last class is no object, or 'sigmoid'; got "
            "'auto', for a model whose configuration does not tell"
        )
    corners = _corners(boxes)
    if head == "sigmoid":
        probabilities = logits.sigmoid()
        objectness = probabilities.amax(-1)
    else:
        probabilities = logits.softmax(-1)
        probabilities, objectness = probabilities[..., :-1], 1 - probabilities[..., -1]
    images = zip(corners, objectness, probabilities, strict=True)
    return [Detections(box, score, None, classes, True) for box, score, classes in images]


def _of_tensor(outputs: Tensor) -> list[Detections]:
    """Return detections of a YOLO network: `(B, 4 + K, N)`, or `(B, N, 6)` from end to end."""
    if outputs.ndim == 3 and outputs.shape[2] == _ROWS_END_TO_END < outputs.shape[1]:
        values = outputs.detach()
        labels = values[..., 5]
        _check_unit(values[..., 4], outputs)
        if (values[..., 2:4] < values[..., :2]).any() or (labels != labels.round()).any():
            raise _unknown(outputs)
        return [
            Detections(image[:, :4], image[:, 4], image[:, 5].detach().round().long())
            for image in outputs
        ]
    if outputs.ndim != 3 or not 4 < outputs.shape[1] < outputs.shape[2]:
        raise _unknown(outputs)
    by_box = outputs.transpose(1, 2)
    _check_unit(by_box[..., 4:].detach(), outputs)
    return [
        Detections(_corners(image[:, :4]), image[:, 4:].amax(1), None, image[:, 4:])
        for image in by_box
    ]


def _check_unit(values: Tensor, outputs: Tensor) -> None:
    """Raise unless values are probabilities."""
    if not ((values >= 0) & (values <= 1)).all():
        raise _unknown(outputs)


def _of_image(image: Any) -> Detections:
    """Return the detections of one image's dictionary or object."""
    boxes = _entry(image, _BOXES)
    if boxes is not None and not isinstance(boxes, Tensor):  # ultralytics: image.boxes.xyxy
        image, boxes = boxes, _entry(boxes, ("xyxy",))
    scores, labels = _entry(image, _SCORES), _entry(image, _LABELS)
    if not (isinstance(boxes, Tensor) and isinstance(scores, Tensor)):
        raise _unknown(image)
    if labels is None and scores.ndim == 2:
        return Detections(boxes, scores.amax(1), None, scores)
    if labels is None:
        return Detections(boxes, scores, None, scores.unsqueeze(1))
    return Detections(boxes, scores, labels.detach().round().long())


def _corners(boxes: Tensor) -> Tensor:
    """Return boxes `(..., 4)` of centre and size as left, top, right, bottom."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1)


def _entry(outputs: Any, names: tuple[str, ...]) -> Any:
    """Return the first of some entries or attributes that there is; else None."""
    for name in names:
        if isinstance(outputs, Mapping):
            value = outputs.get(name)
        else:
            value = None if isinstance(outputs, Tensor) else getattr(outputs, name, None)
        if value is not None:
            return value
    return None


def _unknown(outputs: Any) -> UnilensError:
    if isinstance(outputs, Tensor):
        actual = f"a tensor {tuple(outputs.shape)}"
    elif isinstance(outputs, Mapping):
        actual = f"{type(outputs).__name__} with keys {', '.join(map(str, outputs))}"
    else:
        actual = type(outputs).__name__
    return UnilensError(
        "expected a detector's outputs: dictionaries of boxes, scores and labels, logits and "
        "pred_boxes, or a YOLO tensor (B, 4 + K, N) of boxes and class probabilities, got "
        f"{actual}; write a score of your own, a "
        "function from what the model returns to (B,)"
    )

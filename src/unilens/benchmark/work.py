"""The work itself: all maps of one image under one model, and all that is measured of them."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import logging
import math
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from PIL import Image
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.output_detection import output_spec
from ..attribution import Attribution
from ..errors import NotApplicableError, UnilensError, first_line, require
from ..explainer import Explainer
from ..metrics import Measurement
from ..metrics.cache import MetricCache
from ..models import PixelClassifier, load_model
from ..output.viz import overlay, pixels
from ..provenance import describe
from ..specs import Spec, build_method
from .data import Item, class_index_of
from .data.imagenet_c import corrupt
from .data.items import writable
from .plan import Changed, Plan
from .rows import FAILED, INAPPLICABLE, OK, UNDEFINED, Row

_log = logging.getLogger(__name__)
Rows = Generator[list[Row], None, None]
"""Rows in any order, some at a time; closed where no more are wanted."""
_CURVES = ("curve", "fractions", "confidence")
"""The details of a metric that are kept, by the last word of their name."""
_LONGEST_CURVE = 1001
_PICTURE_SIDE = 160
_MODELS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """One image under one model, and what is yet to be done of it.

    Attributes:
        item: the image.
        change: what it goes through first.
        model: by name.
        missing: the metrics to be measured, by method.
        pictured: whether a small picture of each map is kept.
    """

    item: Item
    change: Changed | None
    model: str
    missing: Mapping[str, Sequence[str]]
    pictured: bool


@dataclass(frozen=True)
class Loaded:
    """A model with the plan's methods built for it; a method that cannot be is an error."""

    classifier: PixelClassifier
    evaluator: Evaluator
    explainers: Mapping[str, Explainer | UnilensError]


@dataclass(frozen=True)
class Seen:
    """An image as a model sees it.

    Attributes:
        pixels: `(1, 3, H, W)`.
        known: what its rows say of it.
        cache: what its maps and metrics share.
    """

    pixels: Tensor
    known: Row
    cache: MetricCache


class Workbench:
    """Does units of work, and keeps the models that it has loaded.

    Args:
        plan: what is to be done.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._specs, self._measures = plan.method_specs, plan.measures
        self._metric_settings = {
            name: _plain(describe(measure)) for name, measure in self._measures.items()
        }
        self.load = functools.lru_cache(_MODELS_KEPT)(self._load)

    def rows(self, unit: Unit) -> Rows:
        """Yield the rows of a unit, one list per method.

        What goes wrong with the image or a method is said in the rows that it costs.

        Raises:
            UnilensError: the model is not to be had.
        """
        loaded = self.load(unit.model)
        try:
            seen = self._see(unit, loaded)
        except Exception as error:
            yield self.failed(unit, _reason(error, f"{unit.item.name}, {unit.model}"))
            return
        base = self._base(unit) | seen.known
        for method, missing in unit.missing.items():
            yield self._of_method(unit, loaded, seen, method, missing, base)

    def failed(self, unit: Unit, reason: str) -> list[Row]:
        """Return the rows of a unit of which nothing could be done."""
        shared = self._base(unit) | {"status": FAILED, "reason": writable(reason)}
        return [
            shared | {"method": method, "metric": metric}
            for method, missing in unit.missing.items()
            for metric in missing
        ]

    def _load(self, name: str) -> Loaded:
        plan = self._plan
        try:
            classifier = load_model(name, pretrained=not plan.random_weights, device=plan.device)
        except UnilensError:
            raise
        except Exception as error:  # a user's function raises whatever it likes
            raise UnilensError(
                f"could not load the model {name}: {type(error).__name__}: {first_line(error)}"
            ) from error
        classifier = classifier.to(getattr(torch, plan.dtype))
        explainers = {method: _built(spec, classifier) for method, spec in self._specs.items()}
        return Loaded(classifier, Evaluator(classifier), explainers)

    def _base(self, unit: Unit) -> Row:
        change = unit.change
        return {
            "image": unit.item.key,
            "corruption": "" if change is None else change.name,
            "severity": 0 if change is None else change.severity,
            "model": unit.model,
            "seed": self._plan.seed,
        }

    def _see(self, unit: Unit, loaded: Loaded) -> Seen:
        """Return the image as the model sees it, with its label, and what the model says of it."""
        classifier, plan = loaded.classifier, self._plan
        taken = classifier.preprocess(unit.item.load())
        if unit.change is not None:
            taken = corrupt(taken, unit.change.name, unit.change.severity, plan.seed)
        label = class_index_of(unit.item.label, classifier)
        if plan.target == "label" and label is None:
            raise UnilensError(
                f"expected a label of {unit.item.name} to explain, got none that the model knows; "
                "give labels, or explain the predicted class"
            )
        inputs = taken.to(plan.device, getattr(torch, plan.dtype))[None]
        cache = MetricCache(loaded.evaluator, inputs)
        outputs = cache.outputs(loaded.evaluator, inputs)
        spec = output_spec(loaded.evaluator, inputs, outputs)
        predicted = int(spec.predicted(outputs))
        target = label if plan.target == "label" else predicted
        if outputs.shape[-1] == 1:
            require(
                plan.target != "label" or label == 1,
                f"expected a label that the model's only output is about, got {label} of "
                f"{unit.item.name}; explain the predicted class",
            )
            target = 0
        known = {
            "content": hashlib.sha256(taken.contiguous().numpy().tobytes()).hexdigest()[:16],
            "label": label,
            "predicted": predicted,
            "target": target,
            "confidence": _number(spec.probabilities(outputs)[0, target]),
        }
        return Seen(inputs, known, cache)

    def _of_method(
        self,
        unit: Unit,
        loaded: Loaded,
        seen: Seen,
        method: str,
        missing: Sequence[str],
        base: Row,
    ) -> list[Row]:
        """Return the rows of one method: its map, made once, under every metric."""
        place = f"{unit.item.name}, {unit.model}, {method}"
        explainer = loaded.explainers[method]
        try:
            if isinstance(explainer, UnilensError):
                raise explainer
            settings = _plain(describe(explainer))
            attribution = explainer(
                loaded.evaluator, seen.pixels, seen.known["target"], seed=self._plan.seed
            )
        except Exception as error:
            fits = _fits(explainer, loaded.evaluator, seen.pixels)
            status, reason = _status(error) if fits else INAPPLICABLE, _reason(error, place)
            shared = base | {"method": method, "status": status, "reason": reason}
            return [shared | {"metric": metric} for metric in missing]
        made: Any = attribution.provenance
        shared = base | {
            "method": method,
            "method_settings": settings,
            "warnings": attribution.warnings[0],
            "forward": made["passes"]["forward"],
            "backward": made["passes"]["backward"],
            "map_seconds": made["seconds"],
        }
        rows = [
            shared
            | {"metric": metric, "metric_settings": self._metric_settings[metric]}
            | self._measured(loaded, seen, explainer, attribution, metric, place)
            for metric in missing
        ]
        first = self._plan.metrics[0]
        if unit.pictured and first in missing:
            drawn = picture(seen.pixels[0], attribution.values[0])
            rows[missing.index(first)]["picture"] = drawn
        return rows

    def _measured(
        self,
        loaded: Loaded,
        seen: Seen,
        explainer: Explainer,
        attribution: Attribution,
        metric: str,
        place: str,
    ) -> Row:
        began = time.perf_counter()
        try:
            found = self._measures[metric](
                loaded.evaluator,
                seen.pixels,
                attribution,
                method=explainer,
                seed=self._plan.seed,
                cache=seen.cache,
            )
            said = _said(found)
        except Exception as error:
            said = {"status": _status(error), "reason": _reason(error, f"{place}, {metric}")}
        return said | {"seconds": time.perf_counter() - began}


def _built(spec: Spec, classifier: PixelClassifier) -> Explainer | UnilensError:
    try:
        return build_method(spec, classifier)
    except UnilensError as error:
        return error


def _fits(explainer: Explainer | UnilensError, evaluator: Evaluator, inputs: Tensor) -> bool:
    """Whether it is not the method's own check that has failed: asked afterwards, it costs less."""
    try:
        if not isinstance(explainer, UnilensError):
            explainer.check(evaluator, inputs)
    except UnilensError:
        return False
    return True


def _status(error: Exception) -> str:
    return INAPPLICABLE if isinstance(error, NotApplicableError) else FAILED


def _reason(error: Exception, place: str) -> str:
    """Return why in one line; what is no message of ours goes to the log with its traceback."""
    if isinstance(error, UnilensError):
        level = logging.DEBUG if isinstance(error, NotApplicableError) else logging.WARNING
        _log.log(level, "%s: %s", place, error)
        return writable(str(error))
    _log.error("%s: %s", place, error, exc_info=error)
    return writable(f"{type(error).__name__}: {first_line(error)}")


def _said(found: Measurement) -> Row:
    """Return what a measurement of one input says, as plain data."""
    value = float(found.values[0])
    return {
        "value": value if math.isfinite(value) else None,
        "status": OK if math.isfinite(value) else UNDEFINED,
        "parts": [(name, float(values[0])) for name, values in sorted(found.breakdown.items())],
        "curves": [
            (name, values[0].double().tolist())
            for name, values in sorted(found.details.items())
            if name.split()[-1] in _CURVES and values[0].numel() <= _LONGEST_CURVE
        ],
    }


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None


def _plain(described: object) -> str:
    return json.dumps(described, sort_keys=True, default=str)


def picture(image: Tensor, values: Tensor) -> bytes:
    """Return an image `(3, H, W)` and its map `(3, H, W)` over it, side by side, as small WebP."""
    beside = numpy.concatenate([pixels(image), overlay(image, values)], axis=1)
    drawn = Image.fromarray((beside * 255).round().astype(numpy.uint8))
    drawn = drawn.resize((2 * _PICTURE_SIDE, _PICTURE_SIDE), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    drawn.save(written, "WEBP", quality=80, method=0)
    return written.getvalue()

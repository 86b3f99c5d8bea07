"""All maps of one image under one model, and their metrics."""

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
from ..explainer import Method
from ..metrics.cache import MetricCache
from ..models import PixelClassifier, load_model
from ..output.viz import overlay, pixels
from ..provenance import describe
from ..specs import Spec, build_method
from .data import Item, TruthSet, class_index_of
from .data.imagenet_c import corrupt
from .data.items import writable
from .plan import CorruptionConfig, Plan
from .rows import FAILED, INAPPLICABLE, Row, measurement_columns

_log = logging.getLogger(__name__)
RowBatches = Generator[list[Row], None, None]
"""Lists of rows in any order; closed to stop early."""
_PICTURE_SIDE = 160
_MODELS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Unit:
    """One image under one model, and its missing rows.

    Attributes:
        item: the image.
        corruption: applied to it first; None for none.
        model: by name.
        missing: the metrics to measure, by method.
        pictured: whether a thumbnail of each map is kept.
        content: digest of the model's input in earlier rows; None without any.
    """

    item: Item
    corruption: CorruptionConfig | None
    model: str
    missing: Mapping[str, Sequence[str]]
    pictured: bool
    content: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """A model and the plan's methods built for it, or the errors of building them."""

    classifier: PixelClassifier
    evaluator: Evaluator
    explainers: Mapping[str, Method | UnilensError]


@dataclass(frozen=True)
class _PreparedImage:
    """A preprocessed image.

    Attributes:
        pixels: `(1, 3, H, W)`.
        columns: of its rows: label, prediction, target and confidence.
        truth: what is known of its reason, as keywords of a metric.
        cache: shared by its maps and metrics.
    """

    pixels: Tensor
    truth: Mapping[str, Tensor]
    columns: Row
    cache: MetricCache


class Workbench:
    """Computes units, and keeps the models that it has loaded.

    Args:
        plan: of the run.
        models: that are loaded already, by name; they are taken as they are.
    """

    def __init__(self, plan: Plan, models: Mapping[str, PixelClassifier] | None = None) -> None:
        self._plan, self._given = plan, models or {}
        self._specs, self.metrics = plan.method_specs, plan.built_metrics
        self.metric_settings = {
            name: as_json(describe(metric)) for name, metric in self.metrics.items()
        }
        self.load = functools.lru_cache(_MODELS_KEPT)(self._load)

    def rows(self, unit: Unit) -> RowBatches:
        """Yield the rows of a unit, one list per method.

        Errors of the image or a method are recorded in its rows.

        Raises:
            UnilensError: the model cannot be loaded.
        """
        loaded = self.load(unit.model)
        try:
            image = self._prepare(unit, loaded)
            require(
                unit.content in (None, image.columns["content"]),
                f"expected {unit.item.name} as it was when the run began, got other pixels; put "
                "the photograph back and pass --retry-failed, or begin another run with --out",
            )
        except Exception as error:
            yield self.failed(unit, _reason(error, f"{unit.item.name}, {unit.model}"))
            return
        base = self._base(unit) | image.columns
        for method, missing in unit.missing.items():
            yield self._method_rows(unit, loaded, image, method, missing, base)

    def failed(self, unit: Unit, reason: str) -> list[Row]:
        """Return the rows of a unit that failed as a whole."""
        shared = self._base(unit) | {"status": FAILED, "reason": writable(reason)}
        return [
            shared | {"method": method, "metric": metric}
            for method, missing in unit.missing.items()
            for metric in missing
        ]

    def _load(self, name: str) -> LoadedModel:
        plan = self._plan
        if name in self._given:
            return self._with_methods(self._given[name])
        try:
            classifier = load_model(name, pretrained=not plan.random_weights, device=plan.device)
        except UnilensError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise UnilensError(
                f"could not load the model {name}: {type(error).__name__}: {first_line(error)}"
            ) from error
        if plan.target not in ("predicted", "label"):
            classifier.class_index(plan.target)  # refused before any image
        return self._with_methods(classifier.to(getattr(torch, plan.dtype)))

    def _with_methods(self, classifier: PixelClassifier) -> LoadedModel:
        explainers = {method: _built(spec, classifier) for method, spec in self._specs.items()}
        return LoadedModel(classifier, Evaluator(classifier), explainers)

    def _base(self, unit: Unit) -> Row:
        corruption = unit.corruption
        return {
            "image": unit.item.key,
            "corruption": "" if corruption is None else corruption.name,
            "severity": 0 if corruption is None else corruption.severity,
            "model": unit.model,
            "seed": self._plan.seed,
        }

    def _prepare(self, unit: Unit, loaded: LoadedModel) -> _PreparedImage:
        """Return the preprocessed image with its label and the model's prediction."""
        classifier, plan = loaded.classifier, self._plan
        pixels = classifier.preprocess(unit.item.load())
        if unit.corruption is not None:
            pixels = corrupt(pixels, unit.corruption.name, unit.corruption.severity, plan.seed)
        label = class_index_of(unit.item.label, classifier)
        if plan.target == "label" and label is None:
            raise UnilensError(
                f"expected a label of {unit.item.name} to explain, got none that the model has; "
                "give labels, or explain the predicted class"
            )
        inputs = pixels.to(plan.device, getattr(torch, plan.dtype))[None]
        cache = MetricCache(loaded.evaluator, inputs)
        outputs = cache.outputs(loaded.evaluator, inputs)
        spec = output_spec(loaded.evaluator, inputs, outputs)
        predicted = int(spec.predicted(outputs))
        chosen = {"predicted": predicted, "label": label}
        fixed = plan.target not in chosen
        target = classifier.class_index(plan.target) if fixed else chosen[plan.target]
        if outputs.shape[-1] == 1:
            require(
                plan.target != "label" or label == 1,
                f"expected the label of the model's only output, 1, got {label} of "
                f"{unit.item.name}; explain the predicted class",
            )
            target = target if fixed else 0
        confidence = float(spec.probabilities(outputs)[0, target])
        columns = {
            "content": content_of(pixels),
            "label": label,
            "predicted": predicted,
            "target": target,
            "confidence": confidence if math.isfinite(confidence) else None,
        }
        return _PreparedImage(inputs, _truth_of(unit.item, classifier, inputs), columns, cache)

    def _method_rows(
        self,
        unit: Unit,
        loaded: LoadedModel,
        image: _PreparedImage,
        method: str,
        missing: Sequence[str],
        base: Row,
    ) -> list[Row]:
        """Return the rows of one method: one map, evaluated by every metric."""
        where = f"{unit.item.name}, {unit.model}, {method}"
        explainer = loaded.explainers[method]
        try:
            if isinstance(explainer, UnilensError):
                raise explainer
            settings = as_json(describe(explainer))
            attribution = explainer(
                loaded.evaluator, image.pixels, image.columns["target"], seed=self._plan.seed
            )
        except Exception as error:
            fits = _fits(explainer, loaded.evaluator, image.pixels)
            status, reason = _status(error) if fits else INAPPLICABLE, _reason(error, where)
            shared = base | {"method": method, "status": status, "reason": reason}
            return [shared | {"metric": metric} for metric in missing]
        provenance: Any = attribution.provenance
        shared = base | {
            "method": method,
            "method_settings": settings,
            "warnings": attribution.warnings[0],
            "forward": provenance["passes"]["forward"],
            "backward": provenance["passes"]["backward"],
            "map_seconds": provenance["seconds"],
        }
        rows = [
            shared
            | {"metric": metric, "metric_settings": self.metric_settings[metric]}
            | self._measured(loaded, image, explainer, attribution, metric, where)
            for metric in missing
        ]
        first = self._plan.metrics[0]
        if unit.pictured and first in missing:
            picture = _thumbnail(image.pixels[0], attribution.values[0])
            rows[missing.index(first)]["picture"] = picture
        return rows

    def _measured(
        self,
        loaded: LoadedModel,
        image: _PreparedImage,
        explainer: Method,
        attribution: Attribution,
        metric: str,
        where: str,
    ) -> Row:
        began = time.perf_counter()
        try:
            measurement = self.metrics[metric](
                loaded.evaluator,
                image.pixels,
                attribution,
                method=explainer,
                mask=image.truth.get("mask"),
                without_parts=image.truth.get("without_parts"),
                seed=self._plan.seed,
                cache=image.cache,
            )
            columns = measurement_columns(measurement)
        except Exception as error:
            columns = {"status": _status(error), "reason": _reason(error, f"{where}, {metric}")}
        return columns | {"seconds": time.perf_counter() - began}


def _truth_of(item: Item, classifier: PixelClassifier, inputs: Tensor) -> dict[str, Tensor]:
    """Return the mask `(1, H, W)` of the reason and the image without parts `(1, P, 3, H, W)`.

    Both are as the model sees the image, and left out where they are not known.
    """
    if not isinstance(item.origin, TruthSet):
        return {}
    example, known = item.origin.example(item.name), {}
    if example.mask is not None:
        known["mask"] = classifier.preprocess(example.mask).mean(0, keepdim=True) > 0.5
    if example.without:
        rendered = [classifier.preprocess(image) for image in example.without]
        known["without_parts"] = torch.stack(rendered)[None].to(inputs)
    return known


def _built(spec: Spec, classifier: PixelClassifier) -> Method | UnilensError:
    try:
        return build_method(spec, classifier)
    except UnilensError as error:
        return error


def _fits(explainer: Method | UnilensError, evaluator: Evaluator, inputs: Tensor) -> bool:
    """Whether the method's own check passes; asked only after an error, which costs less."""
    try:
        if not isinstance(explainer, UnilensError):
            explainer.check(evaluator, inputs)
    except UnilensError:
        return False
    return True


def _status(error: Exception) -> str:
    return INAPPLICABLE if isinstance(error, NotApplicableError) else FAILED


def _reason(error: Exception, where: str) -> str:
    """Return the error in one line; unexpected ones are logged with their traceback."""
    if isinstance(error, UnilensError):
        level = logging.DEBUG if isinstance(error, NotApplicableError) else logging.WARNING
        _log.log(level, "%s: %s", where, error)
        return writable(str(error))
    _log.error("%s: %s", where, error, exc_info=error)
    return writable(f"{type(error).__name__}: {first_line(error)}")


def content_of(image: Tensor) -> str:
    """Return a digest of the model's input `(C, H, W)`, as rows have it."""
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()[:16]


def as_json(described: object) -> str:
    """Return settings as rows have them."""
    return json.dumps(described, sort_keys=True, default=str)


def _thumbnail(image: Tensor, values: Tensor) -> bytes:
    """Return an image `(3, H, W)` beside its map `(3, H, W)` laid over it, as a small WebP."""
    panels = numpy.concatenate([pixels(image), overlay(image, values)], axis=1)
    drawn = Image.fromarray((panels * 255).round().astype(numpy.uint8))
    drawn = drawn.resize((2 * _PICTURE_SIDE, _PICTURE_SIDE), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    drawn.save(written, "WEBP", quality=80, method=0)
    return written.getvalue()

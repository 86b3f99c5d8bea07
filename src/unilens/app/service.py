"""What the page shows, computed and cached: predictions, maps, paths and checks."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.output_detection import output_spec
from ..attribution import Attribution
from ..errors import NotApplicableError, UnilensError, require
from ..explainer import Method
from ..methods import methods
from ..methods.path_diagnostics import stability
from ..models import PixelClassifier, load_model
from ..output.records import predictions
from ..path_attribution import PathAttribution
from .applicable import applies
from .jobs import Job
from .path_steps import MAX_STEPS, PathSteps, path_steps
from .photograph import Photograph
from .request import ExplainRequest, MethodRequest, read_request
from .runner import JobRunner
from .wording import title_of

T = TypeVar("T")
TOP_CLASSES = 5
"""Classes that are shown as bars."""
_STABILITY_PASSES = 46


@dataclass(frozen=True)
class Explanation:
    """The maps of one photograph.

    Attributes:
        photograph: the photograph that is explained.
        request: model, methods, target and seed.
        model: the classifier that is explained.
        pixels: `(3, H, W)`, the model's input.
        explainers: the methods with their settings, by name.
        attributions: their maps, by name, in the order of the request.
        left_out: why other methods gave no map, by name.
        against: index of the class that the target is contrasted with; None for no contrast.
    """

    photograph: Photograph
    request: ExplainRequest
    model: PixelClassifier
    pixels: Tensor
    explainers: Mapping[str, Method]
    attributions: Mapping[str, Attribution]
    left_out: Mapping[str, str]
    against: int | None = None

    @property
    def target(self) -> int:
        """Index of the class that is explained."""
        return int(next(iter(self.attributions.values())).target[0])

    @property
    def label(self) -> str:
        """Name of the class that is explained."""
        return self.model.label(self.target)


@dataclass(frozen=True)
class Predictions:
    """What a model says of a photograph.

    Attributes:
        top: the most probable classes, each with index, label and probability.
        count: how many outputs the model has.
        exclusive: whether each output is a class that excludes the others.
    """

    top: list[dict[str, Any]]
    count: int
    exclusive: bool

    @property
    def noun(self) -> str:
        """What the first of the classes is."""
        if self.exclusive:
            return "the class predicted"
        return "the only output" if self.count == 1 else "the most probable label"


class _LoadedModel(NamedTuple):
    """A model, and what runs it."""

    classifier: PixelClassifier
    evaluator: Evaluator


class ExplainService:
    """Computes what the page shows, one job at a time: a single pass already uses all cores.

    Args:
        models: names of the models that are offered; others are refused.
        device: where they run.
        pretrained: False for random weights.
        runner: runs the work; it can be shared with other services.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        device: str = "cpu",
        pretrained: bool = True,
        runner: JobRunner | None = None,
    ) -> None:
        require(bool(models), "expected at least one model to offer, got none")
        self.models = tuple(models)
        self._device, self._pretrained = device, pretrained
        self._loaded: dict[str, _LoadedModel] = {}
        self._runner = runner or JobRunner()
        self._load_lock = threading.Lock()

    def close(self) -> None:
        """End all work at its next pass, and wait for that."""
        self._runner.close()

    def classifier(self, name: str) -> PixelClassifier:
        """Return a model that is offered, loaded at its first use."""
        return self._load(name).classifier

    def predictions(self, photograph: Photograph, model: str) -> Predictions:
        """Return the most probable classes.

        Raises:
            UnilensError: the model is no classifier.
        """
        loaded = self._load(model)

        def predict() -> Predictions:
            inputs = self._pixels(photograph, model)[None]
            outputs = loaded.evaluator(inputs)
            spec = output_spec(loaded.evaluator, inputs, outputs)
            require(
                spec.has_probabilities,
                f"expected a classifier on the page, got a model of outputs={spec.kind!r}; use "
                "unilens.explain",
            )
            probabilities = spec.probabilities(outputs[0])
            indices = outputs[0].topk(min(TOP_CLASSES, outputs.numel())).indices.tolist()
            top = predictions(loaded.classifier, probabilities, indices)
            return Predictions(top, outputs.numel(), spec.is_exclusive(outputs))

        return self._runner.run(("predictions", photograph.digest, model), Job(), predict)

    def explain(
        self,
        photograph: Photograph,
        request: ExplainRequest,
        job: Job,
        against: int | None = None,
    ) -> Explanation:
        """Return the maps of a photograph.

        Args:
            photograph: to explain.
            request: model, methods, target and seed.
            job: counts the passes.
            against: index of another class, to explain the margin between the target and it.

        Raises:
            UnilensError: the request is not on offer, or no method fits the model.
            Cancelled: the job is cancelled.
        """
        request.check(self.models)
        model = self.classifier(request.model)
        count = len(model.labels)
        require(
            request.target is None or not count or request.target < count,
            f"expected a class between 0 and {count - 1}, got {request.target}",
        )
        explainers = {method.name: method.explainer(model, against) for method in request.methods}
        attributions: dict[str, Attribution] = {}
        left_out: dict[str, str] = {}
        explanation = Explanation(
            photograph,
            request,
            model,
            self._pixels(photograph, request.model),
            explainers,
            attributions,
            left_out,
            against,
        )
        for number, method in enumerate(request.methods):
            passes = explainers[method.name].passes.forward
            job.begin(title_of(method.name), number / len(explainers), 1 / len(explainers), passes)
            compute = functools.partial(_explain_by, method, explanation)
            try:
                attributions[method.name] = self.run("map", explanation, method.name, job, compute)
            except UnilensError as error:
                left_out[method.name] = str(error)
        if not attributions:
            raise UnilensError("; ".join(left_out.values()))
        return explanation

    def applies(self, method: str, photograph: Photograph, model: str) -> bool:
        """Return whether a method fits a model and a photograph."""
        evaluator, inputs = self._load(model).evaluator, self._pixels(photograph, model)[None]
        compute = functools.partial(applies, method, evaluator, inputs)
        return self._runner.run(("applies", model, method), Job(), compute)

    def path_steps(self, explanation: Explanation, job: Job) -> dict[str, PathSteps]:
        """Return the paths from the baselines to the photograph, of the methods that have one."""
        paths = {}
        share = 1 / len(explanation.attributions)
        for number, (name, attribution) in enumerate(explanation.attributions.items()):
            explainer = explanation.explainers[name]
            if not isinstance(explainer, PathAttribution) or explainer.n_steps > MAX_STEPS:
                continue
            job.begin(f"{title_of(name)}: the path", number * share, share, 2 * explainer.n_steps)
            compute = functools.partial(
                path_steps, explainer, pixels=explanation.pixels, attribution=attribution
            )
            with contextlib.suppress(NotApplicableError):
                paths[name] = self.run("path", explanation, name, job, compute)
        return paths

    def with_stability(self, explanation: Explanation, job: Job) -> dict[str, Attribution]:
        """Return the maps with their stability under other numbers of steps."""
        attributions = dict(explanation.attributions)
        share = 1 / len(attributions)
        for number, (name, attribution) in enumerate(explanation.attributions.items()):
            explainer = explanation.explainers[name]
            if isinstance(explainer, PathAttribution):
                job.begin(f"{title_of(name)}: stability", number * share, share, _STABILITY_PASSES)
                compute = functools.partial(
                    stability,
                    explainer,
                    inputs=explanation.pixels[None],
                    attribution=attribution,
                )
                measured = self.run("stability", explanation, name, job, compute)
                attributions[name] = attribution.with_measured(**measured)
        return attributions

    def run(
        self,
        kind: str,
        explanation: Explanation,
        name: str,
        job: Job,
        compute: Callable[[Evaluator], T],
    ) -> T:
        """Return a cached result about one map, or compute it for a job.

        Args:
            kind: what is computed.
            explanation: the photograph and the request it belongs to.
            name: method whose map it is about.
            job: counts the passes.
            compute: takes the evaluator of the model.
        """
        request = explanation.request
        loaded = self._load(request.model)
        method = next(
            (method for method in request.methods if method.name == name), MethodRequest(name=name)
        )
        settings = tuple(sorted((key, repr(value)) for key, value in method.settings.items()))
        photograph = explanation.photograph.digest

        target = (request.target, explanation.against)
        key = (kind, photograph, request.model, target, request.seed, name, settings)
        return self._runner.run(key, job, lambda: compute(loaded.evaluator))

    def _pixels(self, photograph: Photograph, model: str) -> Tensor:
        return self._runner.cached(
            ("pixels", photograph.digest, model),
            lambda: self.classifier(model).preprocess(photograph.image).to(self._device),
        )

    def _load(self, name: str) -> _LoadedModel:
        read_request({"model": name}).check(self.models)
        with self._load_lock:
            if name not in self._loaded:
                classifier = load_model(name, pretrained=self._pretrained, device=self._device)
                evaluator = Evaluator(classifier, on_pass=self._runner.on_pass)
                self._loaded[name] = _LoadedModel(classifier, evaluator)
            return self._loaded[name]


def _explain_by(
    method: MethodRequest, explanation: Explanation, evaluator: Evaluator
) -> Attribution:
    explainer, request = explanation.explainers[method.name], explanation.request
    inputs, card = explanation.pixels[None], methods[method.name].card
    attribution = explainer(evaluator, inputs, request.target, seed=request.seed)
    return attribution.with_provenance(
        method=method.name,
        family=card.family,
        given=dict(method.settings),
        reference=card.reference,
    )

"""What the page shows, computed: predictions, maps, paths and checks, each kept for a while."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from cachetools import LRUCache
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._engine.output_detection import output_spec
from ..attribution import Attribution
from ..errors import NotApplicableError, UnilensError, require
from ..explainer import Explainer
from ..methods.path_diagnostics import stability as map_stability
from ..models import PixelClassifier, load_model
from ..path_attribution import PathAttribution
from .jobs import Cancelled, Job
from .journey import MOST_STEPS, Journey, journey
from .photograph import Photograph
from .wanted import Chosen, Wanted, read_wanted

T = TypeVar("T")
CACHE_BYTES = 128 * 2**20
PREDICTIONS = 5


@dataclass(frozen=True)
class Explained:
    """The maps of one photograph.

    Attributes:
        photograph: what was explained.
        model: what explained it.
        pixels: `(3, H, W)`, what the model saw.
        explainers: the methods with their settings, by name.
        attributions: what they gave, by name, in the order in which they were asked for.
        left_out: why others gave nothing, by name.
    """

    photograph: Photograph
    model: PixelClassifier
    pixels: Tensor
    explainers: Mapping[str, Explainer]
    attributions: Mapping[str, Attribution]
    left_out: Mapping[str, str]

    @property
    def target(self) -> int:
        """The class that is explained."""
        return int(next(iter(self.attributions.values())).target[0])

    @property
    def label(self) -> str:
        """Its name."""
        return self.model.label(self.target)


@dataclass(frozen=True)
class Prediction:
    """A class, and how sure the model is."""

    index: int
    label: str
    probability: float


@dataclass
class _Loaded:
    """A model that is ready, and the job whose passes it runs."""

    classifier: PixelClassifier
    evaluator: Evaluator
    running: dict[str, Job] = field(default_factory=dict)


class Studio:
    """Does the work of the page, one job at a time: a pass takes all cores as it is.

    Args:
        models: the names of the models that are offered; others are refused.
        device: where they run.
        pretrained: False for random weights.
        cache_bytes: of what is kept to be shown again.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        device: str = "cpu",
        pretrained: bool = True,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        require(bool(models), "expected at least one model to offer, got none")
        self.models = tuple(models)
        self._device, self._pretrained = device, pretrained
        self._loaded: dict[str, _Loaded] = {}
        self._kept: LRUCache[Hashable, object] = LRUCache(cache_bytes, _bytes_of)
        self._closed = threading.Event()
        self._cache_lock = threading.Lock()
        self._load_lock = threading.Lock()
        self._work_lock = threading.Lock()

    def close(self, seconds: float = 30.0) -> None:
        """End all work at its next pass, and wait for that: the process must not end within one."""
        self._closed.set()
        if self._work_lock.acquire(timeout=seconds):
            self._work_lock.release()

    def classifier(self, name: str) -> PixelClassifier:
        """Return a model that is offered, loaded at its first use."""
        return self._load(name).classifier

    def predictions(self, photograph: Photograph, model: str) -> list[Prediction]:
        """Return the classes that the model is most sure of."""
        loaded = self._load(model)

        def make() -> list[Prediction]:
            pixels = self._pixels(photograph, model)
            with self._work_lock:
                outputs = loaded.evaluator(pixels[None])
                spec = output_spec(loaded.evaluator, pixels[None], outputs)
            spec.check_classes()
            probabilities = spec.probabilities(outputs[0])
            top = outputs[0].topk(min(PREDICTIONS, outputs.numel())).indices.tolist()
            return [
                Prediction(index, loaded.classifier.label(index), float(probabilities[index]))
                for index in top
            ]

        return self._once(("predictions", photograph.digest, model), make)

    def explain(self, photograph: Photograph, wanted: Wanted, job: Job) -> Explained:
        """Return the maps that are wanted.

        Raises:
            UnilensError: what is wanted is not offered, or no method fits the model.
            Cancelled: the job was.
        """
        wanted = wanted.checked(self.models)
        loaded = self._load(wanted.model)
        self._check_target(wanted, loaded.classifier)
        explainers = {one.name: one.explainer(loaded.classifier) for one in wanted.methods}
        pixels = self._pixels(photograph, wanted.model)
        attributions: dict[str, Attribution] = {}
        left_out: dict[str, str] = {}
        share = 1 / len(explainers)
        for number, chosen in enumerate(wanted.methods):
            explainer = explainers[chosen.name]
            job.part(chosen.name, number * share, share, explainer.passes.forward)
            make = functools.partial(self._explain_one, loaded, explainer, pixels, wanted, chosen)
            try:
                attributions[chosen.name] = self._once(
                    ("map", photograph.digest, *_key(wanted, chosen)), functools.partial(make, job)
                )
            except UnilensError as error:
                left_out[chosen.name] = str(error)
        if not attributions:
            raise UnilensError("; ".join(left_out.values()))
        return Explained(photograph, loaded.classifier, pixels, explainers, attributions, left_out)

    def journeys(self, explained: Explained, wanted: Wanted, job: Job) -> dict[str, Journey]:
        """Return the ways from the baselines to the photograph, for the methods that have one."""
        loaded = self._load(wanted.model)
        found = {}
        share = 1 / len(explained.attributions)
        for number, (name, attribution) in enumerate(explained.attributions.items()):
            explainer = explained.explainers[name]
            if not isinstance(explainer, PathAttribution) or explainer.n_steps > MOST_STEPS:
                continue
            job.part(f"{name}: the path", number * share, share, 2 * explainer.n_steps)
            with contextlib.suppress(NotApplicableError):
                work = functools.partial(
                    journey, explainer, loaded.evaluator, explained.pixels, attribution
                )
                found[name] = self._once(
                    self._of("journey", explained, wanted, name),
                    functools.partial(self._working, loaded, job, work),
                )
        return found

    def with_stability(
        self, explained: Explained, wanted: Wanted, job: Job
    ) -> dict[str, Attribution]:
        """Return the maps with what is known about them at other numbers of steps."""
        loaded = self._load(wanted.model)
        found = dict(explained.attributions)
        share = 1 / len(found)
        for number, (name, attribution) in enumerate(explained.attributions.items()):
            explainer = explained.explainers[name]
            if isinstance(explainer, PathAttribution):
                job.part(f"{name}: stability", number * share, share, 46)
                pixels = explained.pixels[None]
                work = functools.partial(
                    map_stability, explainer, loaded.evaluator, pixels, attribution
                )
                stability = self._once(
                    self._of("stability", explained, wanted, name),
                    functools.partial(self._working, loaded, job, work),
                )
                found[name] = attribution.with_measured(**stability)
        return found

    def working(self, explained: Explained, wanted: Wanted, job: Job) -> Working:
        """Return what a check needs to run the model for a job."""
        loaded = self._load(wanted.model)
        return Working(
            loaded.evaluator,
            explained,
            functools.partial(self._working, loaded, job),
            lambda name, kind, make: self._once(self._of(kind, explained, wanted, name), make),
            job,
        )

    def _of(self, kind: str, explained: Explained, wanted: Wanted, name: str) -> Hashable:
        chosen = next((one for one in wanted.methods if one.name == name), Chosen(name=name))
        return (kind, explained.photograph.digest, *_key(wanted, chosen))

    def _explain_one(
        self,
        loaded: _Loaded,
        explainer: Explainer,
        pixels: Tensor,
        wanted: Wanted,
        chosen: Chosen,
        job: Job,
    ) -> Attribution:
        def work() -> Attribution:
            explainer.check(loaded.evaluator, pixels[None])
            found = explainer(loaded.evaluator, pixels[None], wanted.target, seed=wanted.seed)
            return found.with_provenance(method=chosen.name, given=dict(chosen.settings))

        return self._working(loaded, job, work)

    def _working(self, loaded: _Loaded, job: Job, work: Callable[[], T]) -> T:
        """Do some work with a model while its passes count for a job."""
        with self._work_lock, _running(loaded, job):
            job.on_pass(0)
            return work()

    def _check_target(self, wanted: Wanted, classifier: PixelClassifier) -> None:
        count = len(classifier.labels)
        require(
            wanted.target is None or not count or wanted.target < count,
            f"expected a class between 0 and {count - 1}, got {wanted.target}",
        )

    def _pixels(self, photograph: Photograph, model: str) -> Tensor:
        return self._once(
            ("pixels", photograph.digest, model),
            lambda: self._load(model).classifier.preprocess(photograph.image).to(self._device),
        )

    def _load(self, name: str) -> _Loaded:
        read_wanted({"model": name}).checked(self.models)
        with self._load_lock:
            if name not in self._loaded:
                classifier = load_model(name, pretrained=self._pretrained, device=self._device)
                running: dict[str, Job] = {}

                def on_pass(points: int) -> None:
                    if self._closed.is_set():
                        raise Cancelled
                    if "job" in running:
                        running["job"].on_pass(points)

                evaluator = Evaluator(classifier, on_pass=on_pass)
                self._loaded[name] = _Loaded(classifier, evaluator, running)
            return self._loaded[name]

    def _once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what is kept, or make it and keep it."""
        with self._cache_lock:
            if key in self._kept:
                return cast(T, self._kept[key])
        made = make()
        with self._cache_lock, contextlib.suppress(ValueError):  # too large to be kept at all
            self._kept[key] = made
        return made


@dataclass(frozen=True)
class Working:
    """What a check works with.

    Attributes:
        evaluator: runs the model.
        explained: whose maps are checked.
        run: does some work while its passes count for the job.
        once: from a method, what it is about and how to make it, to what is kept or made.
        job: what it is part of.
    """

    evaluator: Evaluator
    explained: Explained
    run: Callable[[Callable[[], Any]], Any]
    once: Callable[[str, str, Callable[[], Any]], Any]
    job: Job


@contextlib.contextmanager
def _running(loaded: _Loaded, job: Job) -> Iterator[None]:
    loaded.running["job"] = job
    try:
        yield
    finally:
        del loaded.running["job"]


def _key(wanted: Wanted, chosen: Chosen) -> tuple[Hashable, ...]:
    settings = tuple(sorted((name, repr(value)) for name, value in chosen.settings.items()))
    return wanted.model, wanted.target, wanted.seed, chosen.name, settings


def _bytes_of(value: object) -> int:
    """Return roughly how much memory a value keeps."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_bytes_of, value.values())) + 100
    if isinstance(value, Sequence):
        return sum(map(_bytes_of, value)) + 100
    names = getattr(value, "__dataclass_fields__", ())
    return 200 + sum(_bytes_of(getattr(value, name)) for name in names)

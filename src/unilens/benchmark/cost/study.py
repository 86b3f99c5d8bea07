"""A cost study: seconds and memory of maps, by method, resolution, number of steps and batch."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
from torch import Tensor, nn

from ..._engine.copying import private_copy
from ..._engine.evaluator import Evaluator
from ...errors import NotApplicableError, UnilensError, first_line, require
from ...explainer import Explainer
from ...methods import methods
from ...models import PixelClassifier, load_model, samples
from ...specs import Spec, build_method
from ..plan import Plan
from ..rows import FAILED, INAPPLICABLE, OK, Row
from ..session import Outcome, Told, logging_to, quiet
from ..store import LOG, Store, Writing
from .design import (
    BOTH,
    FORWARD,
    PREPARED_BOTH,
    PREPARED_FORWARD,
    YARDSTICKS,
    Cost,
    Place,
    counted_by,
)
from .memory import Memory, watch

_log = logging.getLogger(__name__)
_AT_LEAST = 0.5
"""Seconds that a measurement is repeated for, where one call takes less."""


def study(plan: Plan, folder: Path, *, retry_failed: bool = False, tell: Told = quiet) -> Outcome:
    """Measure what a plan with `[cost]` asks for; go on where it was interrupted.

    Args:
        plan: models, methods, and what they are measured at.
        folder: of the run; it is made where it does not exist.
        retry_failed: whether measurements that failed are done again.
        tell: see `Told`.

    Returns:
        How it ended; its rows are measurements.

    Raises:
        UnilensError: a model is not to be had, another process writes to the folder, it holds
            the run of another plan, or it cannot be written. What was measured is kept.
    """
    began = time.monotonic()
    with Writing(folder):
        store = Store.create(folder, plan)
        with logging_to(folder / LOG), _threads(plan.engine.cpus):
            return _study(plan, store, retry_failed, tell, began)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch have as many threads as a worker of a run would have."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _study(plan: Plan, store: Store, retry_failed: bool, tell: Told, began: float) -> Outcome:
    store.clean()
    rows = [row for row in store.costs() if not (retry_failed and row["status"] == FAILED)]
    before = len(rows)
    known = {place_of(row) for row in rows}
    wanted = planned_places(plan)
    missing = [place for place in wanted if place not in known]
    _log.info("%d measurements planned, %d there", len(wanted), len(wanted) - len(missing))
    failed, there = 0, len(wanted) - len(missing)
    tell(there, len(wanted), failed, "")
    for done, row in enumerate(_measured(plan, missing), start=1):
        rows.append(row)
        store.keep_costs(rows)
        failed += row["status"] == FAILED
        tell(there + done, len(wanted), failed, f"{row['model']}: {row['method']}")
    _log.info("%d measurements made, %d of them failed", len(missing), failed)
    return Outcome(len(missing), before, failed, time.monotonic() - began)


def place_of(row: Row) -> Place:
    """Return what a row is the measurement of."""
    return Place(*(row[name] for name in Place._fields))


def planned_places(plan: Plan) -> list[Place]:
    """Return what a plan asks to be measured, in the order in which it is.

    At each resolution and batch the single passes come first: what they are compared with is
    measured while the machine is as it was for them.
    """
    cost = _cost_of(plan)
    counted = {text: counted_by(methods[spec.name]) for text, spec in plan.method_specs.items()}
    places = []
    for model in plan.models:
        for resolution, batch in cost.shapes:
            places += [Place(model, one, resolution, None, batch) for one in YARDSTICKS]
            for method, count in counted.items():
                steps = cost.steps_at(resolution, batch) if count else [None]
                places += [Place(model, method, resolution, one, batch) for one in steps]
    at = cost.centre
    for model in cost.also:
        places += [Place(model, one, at.resolution, None, at.batch) for one in YARDSTICKS]
    return list(dict.fromkeys(places))


def _cost_of(plan: Plan) -> Cost:
    require(plan.cost is not None, "expected a plan with [cost], got one without")
    return plan.cost or Cost()


def _measured(plan: Plan, places: Sequence[Place]) -> Iterator[Row]:
    """Yield a row for each place; a model is loaded once, and let go before the next."""
    for model, some in itertools.groupby(places, key=lambda place: place.model):
        trained = model in plan.models and not plan.random_weights
        classifier = load_model(model, pretrained=trained, device=plan.device)
        bench = Bench(plan, classifier.to(getattr(torch, plan.dtype)))
        for place in some:
            yield bench.row(place)
        del bench, classifier


class Bench:
    """Measures one model.

    Args:
        plan: the methods, and how often a measurement is repeated.
        classifier: the model; its preprocessing is set to each resolution in turn.
    """

    def __init__(self, plan: Plan, classifier: PixelClassifier) -> None:
        self._plan, self._cost, self._specs = plan, _cost_of(plan), plan.method_specs
        self._classifier, self._own_size = classifier, classifier.preprocessing
        self._evaluator = Evaluator(classifier)
        self._frozen = private_copy(classifier)
        self._device = torch.device(plan.device)

    def row(self, place: Place) -> Row:
        """Return the row of a place; what goes wrong is said in it."""
        shared: Row = place._asdict() | {"status": OK}
        spec = self._specs.get(place.method)
        if spec is not None:
            shared["counted_by"] = counted_by(methods[spec.name])
        try:
            inputs = self._inputs(place.resolution, place.batch)
            self._fits(inputs)
            call = self._single(place, inputs) if spec is None else self._map(place, spec, inputs)
            return shared | self._costs(call) | self._passes(place, spec)
        except NotApplicableError as error:
            return shared | {"status": INAPPLICABLE, "reason": str(error)}
        except Exception as error:
            _log.error("%s: %s", place, error, exc_info=error)
            own = isinstance(error, UnilensError)
            reason = str(error) if own else f"{type(error).__name__}: {first_line(error)}"
            return shared | {"status": FAILED, "reason": reason}

    def _inputs(self, resolution: int, batch: int) -> Tensor:
        """Return photographs that come along, `(batch, 3, resolution, resolution)`."""
        self._classifier.preprocessing = dataclasses.replace(
            self._own_size,
            size=(resolution, resolution),
            resize=resolution,
            interpolation=self._own_size.interpolation or "bicubic",
            transform=None,
        )
        names = itertools.islice(itertools.cycle(samples), batch)
        pixels = torch.stack([self._classifier.preprocess(samples[name]()) for name in names])
        return pixels.to(self._plan.device, getattr(torch, self._plan.dtype))

    def _fits(self, inputs: Tensor) -> None:
        """Raise where the model does not take images of this size."""
        try:
            self._evaluator(inputs[:1])
        except UnilensError as error:
            raise NotApplicableError(str(error)) from error

    def _single(self, place: Place, inputs: Tensor) -> Callable[[], object]:
        """Return a single pass: all images at once where it is bare.

        It is done once already, however long that takes: what libraries prepare at a first pass
        is as long as many passes.
        """
        call: Callable[[], object] = {
            FORWARD: lambda: _forward(self._frozen, inputs),
            BOTH: lambda: _both(self._frozen, inputs),
            PREPARED_FORWARD: lambda: self._evaluator(inputs),
            PREPARED_BOTH: lambda: self._evaluator.differentiate(inputs.unsqueeze(0), _likeliest),
        }[place.method]
        call()
        return call

    def _map(self, place: Place, spec: Spec, inputs: Tensor) -> Callable[[], object]:
        explainer = build_method(self._with_steps(spec, place.n_steps), self._classifier)
        explainer.check(self._evaluator, inputs)
        return lambda: explainer(self._evaluator, inputs, seed=self._plan.seed)

    def _with_steps(self, spec: Spec, n_steps: int | None) -> Spec:
        count = counted_by(methods[spec.name])
        return Spec(spec.name, {**spec.settings, count: n_steps}) if count else spec

    def _passes(self, place: Place, spec: Spec | None) -> Row:
        """Return how often the model is run per image, as the method says of itself."""
        if spec is None:
            return {"forward": 1, "backward": int(place.method in (BOTH, PREPARED_BOTH))}
        explainer: Explainer = build_method(self._with_steps(spec, place.n_steps), self._classifier)
        return explainer.passes._asdict()

    def _costs(self, call: Callable[[], object]) -> Row:
        """Return the median seconds and the largest memory of repeated calls.

        The first is for warmth, and counts only where there is no time for a second.
        """
        taken: list[_Taken] = []
        for turn in itertools.count():
            one = self._taken(call)
            spent = sum(each.seconds for each in taken) + one.seconds
            if turn or one.seconds > self._cost.seconds:
                taken.append(one)
            enough = len(taken) >= self._cost.repeats and spent >= _AT_LEAST
            if taken and (enough or spent > self._cost.seconds):
                break
        seconds = [one.seconds for one in taken]
        return {
            "repeats": len(taken),
            "seconds": statistics.median(seconds),
            "cpu_seconds": statistics.median(one.cpu_seconds for one in taken),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "load": psutil.getloadavg()[0],
            **_largest([one.memory for one in taken]),
        }

    def _taken(self, call: Callable[[], object]) -> _Taken:
        spans: list[float] = []

        def timed() -> None:
            began, worked = time.perf_counter(), time.process_time()
            call()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            spans.extend((time.perf_counter() - began, time.process_time() - worked))

        memory = watch(timed, self._device)
        return _Taken(spans[0], spans[1], memory)


class _Taken(NamedTuple):
    """What one call took; `cpu_seconds` are those of all cores, without waiting for one."""

    seconds: float
    cpu_seconds: float
    memory: Memory


@torch.no_grad()
def _forward(model: nn.Module, inputs: Tensor) -> None:
    model(inputs)


def _both(model: nn.Module, inputs: Tensor) -> None:
    leaf = inputs.clone().requires_grad_()
    torch.autograd.grad(_likeliest(model(leaf)).sum(), leaf)


def _likeliest(outputs: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return the probability of the likeliest class."""
    return outputs.softmax(-1).amax(-1)


def _largest(memories: Sequence[Memory]) -> Row:
    most = max(memories, key=lambda memory: memory.above or 0)
    return {"memory_bytes": most.above, "before_bytes": most.before, "memory_of": most.of}

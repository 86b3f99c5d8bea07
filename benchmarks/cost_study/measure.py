"""Seconds and memory of maps, by method, resolution, number of steps and batch."""

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

from unilens._engine.copying import private_copy
from unilens._engine.evaluator import Evaluator
from unilens.errors import NotApplicableError, UnilensError, first_line
from unilens.explainer import Method
from unilens.models import PixelClassifier, load_model, samples
from unilens.specs import Spec, build_method

from .config import BOTH, FORWARD, PREPARED_BOTH, PREPARED_FORWARD, CostConfig, UnitKey
from .memory import MemoryUse, watch
from .store import FAILED, INAPPLICABLE, OK, CostStore, Row, key_of

_log = logging.getLogger(__name__)
_MIN_SECONDS = 0.5
"""Seconds for which a measurement is repeated, where one call takes less."""
ProgressCallback = Callable[[int, int, UnitKey], None]
"""Called with the measurements made, those planned, and the one just made."""


def measure(
    config: CostConfig,
    folder: Path,
    *,
    retry_failed: bool = False,
    on_row: ProgressCallback = lambda done, planned, key: None,
) -> CostStore:
    """Measure what a configuration asks for; continue where an earlier session stopped.

    Args:
        config: models, methods and sizes.
        folder: of the study; created where it does not exist.
        retry_failed: whether measurements that failed are repeated.
        on_row: called after each measurement.

    Raises:
        UnilensError: a model cannot be loaded, or the folder has a study of another configuration.
    """
    store = CostStore.create(folder, config)
    rows = [row for row in store.rows() if not (retry_failed and row["status"] == FAILED)]
    known = {key_of(row) for row in rows}
    planned = config.unit_keys()
    missing = [key for key in planned if key not in known]
    with _threads(config.threads):
        for row in _measured(config, missing):
            rows.append(row)
            store.write(rows)
            on_row(len(rows), len(planned), key_of(row))
    return store


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use as many threads as a worker of a run."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measured(config: CostConfig, keys: Sequence[UnitKey]) -> Iterator[Row]:
    """Yield a row per key; a model is loaded once, and released before the next."""
    for model, group in itertools.groupby(keys, key=lambda key: key.model):
        trained = model in config.models and not config.random_weights
        classifier = load_model(model, pretrained=trained, device=config.device)
        bench = ModelBench(config, classifier.to(getattr(torch, config.dtype)))
        for key in group:
            yield bench.row(key)
        del bench, classifier


class ModelBench:
    """Measures one model.

    Args:
        config: the methods, and how often a measurement is repeated.
        classifier: the model; its preprocessing is set to each resolution in turn.
    """

    def __init__(self, config: CostConfig, classifier: PixelClassifier) -> None:
        self._config, self._specs = config, config.method_specs
        self._classifier, self._own_size = classifier, classifier.preprocessing
        self._evaluator = Evaluator(classifier)
        self._frozen = private_copy(classifier)
        self._device = torch.device(config.device)

    def row(self, key: UnitKey) -> Row:
        """Return the row of a measurement; errors are recorded in it."""
        setting = self._config.step_setting(key.method)
        shared: Row = key._asdict() | {"status": OK, "counted_by": setting}
        try:
            inputs = self._inputs(key.resolution, key.batch)
            self._check_size(inputs)
            if key.method not in self._specs:
                passes = {"forward": 1, "backward": int(key.method in (BOTH, PREPARED_BOTH))}
                return shared | self._costs(self._single(key.method, inputs)) | passes
            explainer = self._explainer(key)
            explainer.check(self._evaluator, inputs)
            seed = self._config.seed
            costs = self._costs(lambda: explainer(self._evaluator, inputs, seed=seed))
            return shared | costs | explainer.passes._asdict()
        except NotApplicableError as error:
            return shared | {"status": INAPPLICABLE, "reason": str(error)}
        except Exception as error:
            _log.error("%s: %s", key, error, exc_info=error)
            own = isinstance(error, UnilensError)
            reason = str(error) if own else f"{type(error).__name__}: {first_line(error)}"
            return shared | {"status": FAILED, "reason": reason}

    def _inputs(self, resolution: int, batch: int) -> Tensor:
        """Return photographs of installed packages, `(batch, 3, resolution, resolution)`."""
        self._classifier.preprocessing = dataclasses.replace(
            self._own_size,
            size=(resolution, resolution),
            resize=resolution,
            interpolation=self._own_size.interpolation or "bicubic",
            transform=None,
        )
        names = itertools.islice(itertools.cycle(samples), batch)
        pixels = torch.stack([self._classifier.preprocess(samples[name]()) for name in names])
        return pixels.to(self._config.device, getattr(torch, self._config.dtype))

    def _check_size(self, inputs: Tensor) -> None:
        """Raise where the model does not take images of this size."""
        try:
            self._evaluator(inputs[:1])
        except UnilensError as error:
            raise NotApplicableError(str(error)) from error

    def _single(self, method: str, inputs: Tensor) -> Callable[[], object]:
        """Return a single pass: all images at once where it is bare.

        It is run once before it is measured, whatever that takes: libraries prepare at a first
        pass, which takes as long as many passes.
        """
        call: Callable[[], object] = {
            FORWARD: lambda: _forward(self._frozen, inputs),
            BOTH: lambda: _both(self._frozen, inputs),
            PREPARED_FORWARD: lambda: self._evaluator(inputs),
            PREPARED_BOTH: lambda: self._evaluator.differentiate(inputs.unsqueeze(0), _top_score),
        }[method]
        call()
        return call

    def _explainer(self, key: UnitKey) -> Method:
        """Return the method with the number of steps of a measurement."""
        spec, setting = self._specs[key.method], self._config.step_setting(key.method)
        if setting is not None:
            spec = Spec(spec.name, {**spec.settings, setting: key.n_steps})
        return build_method(spec, self._classifier)

    def _costs(self, call: Callable[[], object]) -> Row:
        """Return the median seconds and the largest memory of repeated calls.

        The first call warms up, and counts only where there is no time for a second.
        """
        kept: list[CallCost] = []
        for turn in itertools.count():
            cost = self._call_cost(call)
            spent = sum(earlier.seconds for earlier in kept) + cost.seconds
            if turn or cost.seconds > self._config.seconds:
                kept.append(cost)
            enough = len(kept) >= self._config.repeats and spent >= _MIN_SECONDS
            if kept and (enough or spent > self._config.seconds):
                break
        seconds = [cost.seconds for cost in kept]
        memory = max((cost.memory for cost in kept), key=lambda memory: memory.above or 0)
        return {
            "repeats": len(kept),
            "seconds": statistics.median(seconds),
            "cpu_seconds": statistics.median(cost.cpu_seconds for cost in kept),
            "fastest": min(seconds),
            "slowest": max(seconds),
            "load": psutil.getloadavg()[0],
            "memory_bytes": memory.above,
            "before_bytes": memory.before,
            "memory_of": memory.of,
        }

    def _call_cost(self, call: Callable[[], object]) -> CallCost:
        spans: list[float] = []

        def timed() -> None:
            began, worked = time.perf_counter(), time.process_time()
            call()
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            spans.extend((time.perf_counter() - began, time.process_time() - worked))

        memory = watch(timed, self._device)
        return CallCost(spans[0], spans[1], memory)


class CallCost(NamedTuple):
    """The cost of one call; `cpu_seconds` is summed over all cores, without waiting."""

    seconds: float
    cpu_seconds: float
    memory: MemoryUse


@torch.no_grad()
def _forward(model: nn.Module, inputs: Tensor) -> None:
    model(inputs)


def _both(model: nn.Module, inputs: Tensor) -> None:
    leaf = inputs.clone().requires_grad_()
    torch.autograd.grad(_top_score(model(leaf)).sum(), leaf)


def _top_score(outputs: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return the probability of the predicted class."""
    return outputs.softmax(-1).amax(-1)

"""The paper's tables as plans of a benchmark, and what running them needs."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from ..errors import require
from ..methods import methods
from ..models import load_model
from ..specs import build_method
from .data import Item, open_source
from .plan import Plan, make_plan, presets
from .report.paper import methods_of, metrics_of, tables

PHOTOGRAPHS = 10_000
"""On which the paper measures."""
_TIMED_STEPS = 4
_TIMED_SUBSETS = 4
_ONCE = frozenset({"mu_fidelity_abs"})
"""Metrics whose passes all maps of a photograph share."""
_ROW_BYTES = 400
"""Of a row on the disk, about."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a run needs.

    Attributes:
        photographs: that are measured.
        labelled: how many of them have a label.
        rows: results to compute.
        downloads: bytes of weights that are not on this machine, by model.
        seconds: estimated on this machine, by model.
    """

    photographs: int
    labelled: int
    rows: int
    downloads: Mapping[str, int]
    seconds: Mapping[str, float]

    @property
    def disk(self) -> int:
        """Bytes for the results, about."""
        return self.rows * _ROW_BYTES


def plan_of_table(
    number: int,
    *,
    models: Sequence[str] = (),
    data: Mapping[str, Any],
    device: str = "cpu",
    seed: int = 0,
    random_weights: bool = False,
) -> Plan:
    """Return the plan of one of the paper's tables: its networks, methods and metrics.

    Args:
        number: of the table, 1 to 7.
        models: some of the paper's networks; none for all six.
        data: keys of the plan's section `data`.
        device: where models run.
        seed: of everything random.
        random_weights: whether the models are untrained.

    Raises:
        UnilensError: no such table or network, or the data are invalid.
    """
    known = sorted({table["table"] for table in tables()["tables"].values()})
    require(number in known, f"expected --table {known[0]} to {known[-1]}, got {number}")
    networks = tomllib.loads(presets()["paper"])["models"]
    chosen = [_network(name, networks) for name in models] or networks
    return make_plan(
        {
            "models": list(dict.fromkeys(chosen)),
            "methods": methods_of(number),
            "metrics": metrics_of(number),
            "data": dict(data),
            "device": device,
            "seed": seed,
            "random_weights": random_weights,
            "pictures": 0,
        },
        f"table {number}",
    )


def _network(name: str, networks: Sequence[str]) -> str:
    """Return a network of the paper by its name, with or without `torchvision:`."""
    matches = [network for network in networks if name in (network, network.partition(":")[2])]
    require(
        bool(matches),
        f"expected --model to be one of the paper's networks, "
        f"{', '.join(network.partition(':')[2] for network in networks)}, got {name!r}",
    )
    return matches[0]


def needs_of(
    plan: Plan, on_progress: Callable[[int, int, str], None] = lambda done, planned, model: None
) -> Needs:
    """Return what a plan needs; the time from some passes of each model with random weights.

    Args:
        plan: of the run.
        on_progress: called with the numbers of models timed and planned, and the current one.
    """
    data = plan.data
    items = open_source(data.source, labels=data.labels, split=data.split, limit=data.limit)
    seconds = {}
    for number, model in enumerate(plan.models):
        on_progress(number, len(plan.models), f"timing {model}")
        seconds[model] = len(items) * _seconds_per_photograph(plan, model, items[0])
    return Needs(
        len(items),
        sum(item.label is not None for item in items),
        len(items) * len(plan.models) * len(plan.methods) * len(plan.metrics),
        {} if plan.random_weights else {m: size for m in plan.models if (size := _missing(m))},
        seconds,
    )


def _seconds_per_photograph(plan: Plan, model: str, item: Item) -> float:
    """Return the time of all maps and metrics of a photograph, from the passes they declare."""
    classifier = load_model(model, pretrained=False, device=plan.device)
    inputs = classifier.preprocess(item.load())[None].to(plan.device)
    forward, both = seconds_per_pass(Evaluator(classifier), inputs)
    explainers = {name: build_method(s, classifier) for name, s in plan.method_specs.items()}
    maps = sum(seconds_of(method.passes, forward, both) for method in explainers.values())
    metrics = 0.0
    for name, metric in plan.built_metrics.items():
        own = seconds_of(metric.passes, forward, both)
        metrics += own if name in _ONCE else own * len(explainers)
        metrics += metric.explanations * maps
    return maps + metrics


def seconds_of(passes: PassCount, forward: float, both: float) -> float:
    """Return the time of passes; `forward` and `both` are those of `seconds_per_pass`."""
    return passes.forward * forward + passes.backward * max(0.0, both - forward)


def seconds_per_pass(evaluator: Evaluator, inputs: Tensor) -> tuple[float, float]:
    """Return the time of a forward pass, and of one with its backward pass, each of one point."""
    method = methods["ig"](n_steps=_TIMED_STEPS)
    method(evaluator, inputs, 0)  # the first map plans how the model is run
    points = inputs.expand(_TIMED_SUBSETS, *inputs.shape).contiguous()
    with torch.no_grad():
        forward = _fastest(lambda: evaluator.outputs(points)) / len(points)
    return forward, _fastest(lambda: method(evaluator, inputs, 0)) / method.passes.backward


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the faster of two runs: other programs can only slow them."""
    times = []
    for _ in range(2):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return min(times)


def _missing(model: str) -> int:
    """Return the bytes of a torchvision model's weights; 0 if they are on this machine."""
    import torchvision

    weights = torchvision.models.get_model_weights(model.partition(":")[2]).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(weights.url).path).name
    return 0 if file.exists() else round(weights.meta["_file_size"] * 2**20)

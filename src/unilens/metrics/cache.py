"""The cache of metrics: results of a model at some inputs, kept for other metrics and maps."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator
from .._validation.inputs import check_inputs
from ..errors import require

T = TypeVar("T")


class MetricCache:
    """Keeps results that do not depend on the map, and for the latest map those that metrics share.

    Hand one cache to all metrics of all maps of the same inputs, one map after the other: values
    stay the same to the last bit. It keeps scores, logits and a few images per
    setting, as long as it lives. Functions and objects among the settings count as the same where
    they are the very same; what they give must not change meanwhile.

    Args:
        evaluator: runs the model; the cache serves no other.
        inputs: `(B, *S)`; the cache serves no others.

    Example:
        >>> from unilens.metrics import MuFidelity
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2)).eval()
        >>> inputs, evaluator = torch.rand(3, 1, 4, 4), Evaluator(model)
        >>> cache, metric = MetricCache(evaluator, inputs), MuFidelity(cells=4)
        >>> maps = (inputs, -inputs)  # the second costs no pass
        >>> first, second = (metric(evaluator, inputs, one, cache=cache).values for one in maps)
        >>> torch.allclose(first, -second)
        True
    """

    def __init__(self, evaluator: Evaluator, inputs: Tensor) -> None:
        self._evaluator = evaluator
        self._inputs = key_of(check_inputs(inputs, evaluator.device))
        self._kept: dict[Hashable, Any] = {}
        self._kept_of_map: dict[Hashable, Any] = {}
        self._map: Hashable = None
        self._of_channels_first: dict[int, MetricCache] = {}

    def channels_first(self, evaluator: Evaluator, inputs: Tensor, moved: Tensor) -> MetricCache:
        """Return the cache of the same inputs channels first; raise where they are others.

        Args:
            evaluator: of the model as one of channels first; see `channels_first`.
            inputs: `(B, *S)`, as this cache knows them.
            moved: the same, channels first.
        """
        self._check_inputs(check_inputs(inputs, evaluator.device))
        own = self._of_channels_first
        return own.setdefault(id(evaluator), MetricCache(evaluator, moved))

    def outputs(self, evaluator: Evaluator, inputs: Tensor) -> Tensor:
        """Return the logits `(B, K)` at the inputs; raise where the cache is not theirs."""
        require(
            evaluator is self._evaluator,
            "expected the Evaluator that the cache was made for, got another model; pass that "
            "Evaluator as the model, or make a MetricCache for this one",
        )
        self._check_inputs(inputs)
        return self.once("outputs", lambda: evaluator(inputs))

    def _check_inputs(self, inputs: Tensor) -> None:
        require(
            key_of(inputs) == self._inputs,
            "expected the inputs that the cache was made for, got others; make one for each",
        )

    def once(self, key: object, make: Callable[[], T]) -> T:
        """Return what `make` gives, or gave before; the key has all that this depends on."""
        return _once(self._kept, key, make)

    def once_per_map(self, of_map: object, key: object, make: Callable[[], T]) -> T:
        """Return what `make` gives, or gave before for this map; all of the last map is dropped."""
        if (now := key_of(of_map)) != self._map:
            self._map, self._kept_of_map = now, {}
        return _once(self._kept_of_map, key, make)


def _once(kept: dict[Hashable, Any], key: object, make: Callable[[], T]) -> T:
    if (known := key_of(key)) not in kept:
        kept[known] = make()
    return cast(T, kept[known])


def settings_key(thing: Any, *ignored: str) -> tuple[tuple[str, object], ...]:
    """Return a dataclass's fields but those ignored: a new field is part of the key by itself."""
    names = [field.name for field in dataclasses.fields(thing)]
    assert set(ignored) <= set(names), ignored
    return tuple((name, getattr(thing, name)) for name in names if name not in ignored)


class _Same:
    """A thing that is equal to itself alone; it lives on, so that no other takes its id."""

    def __init__(self, thing: object) -> None:
        self._thing = thing

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing is other._thing

    def __hash__(self) -> int:
        return id(self._thing)


def key_of(thing: object) -> Hashable:
    """Return what is equal for things of the same content: plain data, tensors and dataclasses.

    Anything else, such as a function, is the same as itself alone.
    """
    if isinstance(thing, Tensor):
        fresh = thing.detach().cpu().flatten().clone(memory_format=torch.contiguous_format)
        content = fresh.view(torch.uint8).numpy()  # a single value can have any stride before
        digest = hashlib.sha256(content.tobytes()).digest()
        return type(thing), thing.dtype, str(thing.device), tuple(thing.shape), digest
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {one.name: getattr(thing, one.name) for one in dataclasses.fields(thing)}
        known = {**fields, **getattr(thing, "__dict__", {})}
        return type(thing), *((name, key_of(value)) for name, value in known.items())
    if type(thing) in (tuple, list):
        return type(thing), *map(key_of, cast(tuple[object, ...], thing))
    if type(thing) in (str, int, float, bool, type(None), range):
        return repr(thing)
    return _Same(thing)

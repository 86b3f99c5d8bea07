"""The mean, variance or mean square of another method's maps at noisy copies of the input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, cast

import torch
from torch import Tensor

from .._engine.evaluator import Evaluator, PassCount
from .._ops.random import generators, standard_normal
from .._validation.settings import Positive, check_count
from ..attribution import Attribution
from ..errors import require
from ..explainer import ExplainContext, Method
from ..registry import Card, Entry, check_known
from ..scores import Score
from ..scores import resolve as resolve_score
from .base import methods

Aggregate = Literal["mean", "variance", "square"]
"""Mean of the maps, variance of the maps, mean of the squared maps."""


@dataclass(frozen=True)
class Smoothed(Method):
    """Explain noisy copies of the input by any method, and aggregate the maps.

    The target is the one at the clean input. The values explain the noisy copies, so there is no
    baseline, and the completeness gap is NaN.

    Args:
        explainer: the method that explains each copy.
        n_samples: number of noisy copies per input.
        std: standard deviation of the Gaussian noise, in the inputs' units; the SmoothGrad paper
            uses 0.10 to 0.20 of the input's range (largest minus smallest value).
        aggregate: "mean" (SmoothGrad) in units of the score; "variance" over the samples, divided
            by n_samples (VarGrad), or "square", the mean of the squares (SmoothGrad-Squared), in
            squared units of the score and never negative.

    References:
        Smilkov et al. 2017, arXiv 1706.03825; Adebayo et al. 2018, arXiv 1810.03292;
        Hooker et al. 2019, arXiv 1806.10758.

    Example:
        >>> from unilens.methods import Gradient
        >>> model = torch.nn.Linear(2, 2, bias=False).eval()
        >>> _ = torch.nn.init.constant_(model.weight, 3.0)
        >>> Smoothed(Gradient("logit"), n_samples=2)(model, torch.ones(1, 2), 0).values
        tensor([[3., 3.]])
    """

    explainer: Method
    n_samples: int = 50
    std: Positive = 0.15
    aggregate: Aggregate = "mean"

    def __post_init__(self) -> None:
        require(
            callable(self.explainer) and hasattr(self.explainer, "score"),
            "expected explainer to be a method with a score, such as Gradient() or "
            f"PathAttribution(), got {self.explainer!r}",
        )
        require(
            not self.explainer.create_graph,
            "expected an explainer without create_graph, got one with it; leave it out: the "
            "aggregate keeps no graph",
        )
        check_count("n_samples", self.n_samples, 2 if self.aggregate == "variance" else 1)

    @property
    def score(self) -> str | Score:
        """What is explained: the explainer's score."""
        return self.explainer.score

    @property
    def balanced(self) -> bool | str:  # type: ignore[override]  # a field of others
        """Whether the explainer's gradients are balanced."""
        return self.explainer.balanced

    @property
    def passes(self) -> PassCount:
        """Forward and backward passes per input: the explainer's per sample, and one more."""
        forward, backward = self.explainer.passes
        return PassCount(self.n_samples * forward + 1, self.n_samples * backward)

    def check(self, model: Evaluator, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the explainer does not apply."""
        self.explainer.check(model, inputs)

    def of_rows(self, rows: Tensor | None) -> Smoothed:
        """Return the method for some inputs `(m,)` of a batch; see `Method.of_rows`."""
        if not isinstance(self.explainer, Method):
            return self
        return dataclasses.replace(self, explainer=self.explainer.of_rows(rows))

    def _explain(self, context: ExplainContext) -> Attribution:
        score = resolve_score(self.score, context.evaluator)(context.outputs, context.target)
        values = self._aggregate(context)
        return Attribution(values, context.target, score, context.outputs, complete=self.complete)

    def _aggregate(self, context: ExplainContext) -> Tensor:
        """Return the aggregate of the samples' maps, by Welford's updates, which keep no sample."""
        mean = torch.zeros_like(context.inputs)
        squares = torch.zeros_like(context.inputs)
        for count, values in enumerate(self._maps(context), start=1):
            value = values.square() if self.aggregate == "square" else values
            before = value - mean
            mean = mean + before / count
            squares = squares + before * (value - mean)
        return squares / self.n_samples if self.aggregate == "variance" else mean

    def _maps(self, context: ExplainContext) -> Iterator[Tensor]:
        """Yield each sample's map `(B, *S)`; one call explains enough samples for all workers."""
        draws = generators(context.inputs, torch.Generator().manual_seed(context.seed))
        at_once, batch = _samples_at_once(len(context.inputs)), torch.arange(len(context.inputs))
        for done in range(0, self.n_samples, at_once):
            count = min(at_once, self.n_samples - done)
            noisy = torch.stack([self._noisy(context.inputs, draws) for _ in range(count)])
            explainer = self.of_rows(batch.repeat(count)).explainer
            target, points = context.target.repeat(count), noisy.flatten(0, 1)
            groups = context.groups if self.aggregate == "mean" else None  # others are not linear
            attribution = explainer(
                context.evaluator,
                points,
                target,
                seed=context.seed,
                channels="first",
                groups=None if groups is None else groups.repeat(count),
            )
            yield from attribution.values.unflatten(0, (count, -1))

    def _noisy(self, inputs: Tensor, draws: list[torch.Generator]) -> Tensor:
        """Return the inputs with fresh noise, each from its own generator."""
        noise = torch.stack([standard_normal(inputs.shape[1:], generator) for generator in draws])
        return inputs + self.std * noise.to(inputs.dtype).to(inputs.device)


def _samples_at_once(batch: int) -> int:
    """Return how many samples of each input occupy all workers."""
    return math.ceil(4 * torch.get_num_threads() / batch)


_INNER = "gradient"
_OWN = {
    name: parameter.default
    for name, parameter in signature(Smoothed).parameters.items()
    if name not in ("explainer", "aggregate")
}


@dataclass(frozen=True)
class _SmoothedMethod(Entry[Method]):
    """A named `Smoothed`; its settings and the inner method's share one flat namespace."""

    build: Callable[..., Method] = Smoothed
    aggregate: Aggregate = "mean"

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults, with those of the default inner method."""
        return {"inner": _INNER, **_OWN, **methods[_INNER].settings}

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid for the inner method given, and their defaults."""
        inner = self._inner(given)
        return {"inner": _INNER, **inner.settings_with(given), **_OWN}

    def _inner(self, given: Mapping[str, Any]) -> Entry[Method]:
        inner = methods[given.get("inner", _INNER)]
        require(
            not isinstance(inner, _SmoothedMethod),
            f"expected inner to be a method without smoothing, got {inner.card.name!r}; "
            "nest unilens.methods.Smoothed in Python",
        )
        return inner

    def choices(self, name: str) -> tuple[str, ...]:
        """Return the names that a setting takes, its own or the inner method's."""
        if name == "inner":
            return tuple(
                other for other, entry in methods.items() if not isinstance(entry, _SmoothedMethod)
            )
        return super().choices(name) if name in _OWN else methods[_INNER].choices(name)

    def __call__(self, **settings: Any) -> Method:
        """Build the method; settings that are not its own go to the inner method."""
        check_known(self.card.name, settings, self.settings_with(settings))
        shared = set(_OWN) & set(self._inner(settings).settings_with(settings)) & set(settings)
        require(
            not shared,
            f"expected settings of either {self.card.name} or its inner method, got "
            f"{', '.join(sorted(shared))} of both; build unilens.methods.Smoothed in Python",
        )
        own = {name: settings.pop(name) for name in _OWN if name in settings}
        inner = self._inner(settings)
        settings.pop("inner", None)
        return self.build(inner(**settings), **own, aggregate=self.aggregate)


for _name, _aggregate, _summary, _reference in (
    ("smoothgrad", "mean", "the mean map", "Smilkov et al. 2017, arXiv 1706.03825"),
    ("vargrad", "variance", "the variance of the maps", "Adebayo et al. 2018, arXiv 1810.03292"),
    ("squaregrad", "square", "the mean squared map", "Hooker et al. 2019, arXiv 1806.10758"),
):
    methods.register(
        _SmoothedMethod(
            Card(_name, "smoothing", f"{_summary} of `inner` at noisy inputs", _reference, False),
            aggregate=cast(Aggregate, _aggregate),
        )
    )

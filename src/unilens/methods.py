"""The named methods: settings of Score x Baseline x Path x Quadrature, and the plain gradients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

import torch
from torch import Tensor, nn

from .attribution import Attribution, Case, Explainer, PathAttribution
from .baselines import baselines
from .checks import Target
from .gradients import Evaluator, Passes, ScoreGradient
from .paths import paths
from .registry import Card, Entry, Registry, check_known
from .scores import Score
from .scores import resolve as resolve_score

methods: Registry[Explainer] = Registry("method")


@dataclass(frozen=True)
class Gradient:
    """The gradient of the score at the input, or input times gradient; no baseline.

    Args:
        score: what is explained, by name or as a function of logits and target.
        times_input: multiply by the input: exact for a linear model without bias, against black.

    References:
        Simonyan et al. 2014, arXiv 1312.6034; Shrikumar et al. 2016, arXiv 1605.01713.
    """

    score: str | Score = "probability"
    times_input: bool = False

    def __post_init__(self) -> None:
        resolve_score(self.score)

    @property
    def passes(self) -> Passes:
        """Forward and backward passes per input."""
        return Passes(2, 1)

    def __call__(
        self,
        model: nn.Module | Evaluator,
        inputs: Tensor,
        target: Target = None,
        *,
        seed: int = 0,
    ) -> Attribution:
        """Explain the model at the inputs; see `PathAttribution.__call__`."""
        with torch.inference_mode(False):
            case = Case.begin(model, inputs, target, seed)
            gradient = ScoreGradient(case.evaluator, resolve_score(self.score), case.target)
            _, scores, gradients = gradient(case.inputs.unsqueeze(0))
            values = gradients[0] * case.inputs if self.times_input else gradients[0]
            return case.finish(self, Attribution(values, case.target, scores[0], case.outputs))


def explain(
    model: nn.Module | Evaluator,
    inputs: Tensor,
    method: str = "uni",
    target: Target = None,
    *,
    seed: int = 0,
    **settings: Any,
) -> Attribution:
    """Explain what a model saw in each input.

    Args:
        model: from `(B, *S)` to logits `(B, K)`, in eval mode; it is not changed.
        inputs: `(B, *S)`, floating point.
        method: a name in `unilens.methods()`.
        target: class index or label, one for all or one per input; None for the predicted class.
        seed: of everything random.
        **settings: of the method, its baseline and its path, by name: `n_steps=30`,
            `budget=0.5`, `baseline="blur"`, `sigma=10`.

    Returns:
        The attribution, with its diagnostics and the record of how it was made.

    Raises:
        UnknownNameError: no such method or setting.
        UnilensError: a setting, the inputs, the target or the model do not fit.

    Example:
        >>> import torch
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
        >>> attribution = explain(model, torch.rand(2, 1, 2, 2), method="ig", n_steps=8)
        >>> attribution.values.shape, bool(attribution.completeness_gap.abs().max() < 1e-4)
        (torch.Size([2, 1, 2, 2]), True)
    """
    attribution = methods[method](**settings)(model, inputs, target, seed=seed)
    return attribution.with_provenance(method=method)


_PARTS: dict[str, Registry[Any]] = {"baseline": baselines, "path": paths}
_OWN = {
    field.name: field.default
    for field in dataclasses.fields(PathAttribution)
    if field.name not in _PARTS
}


@dataclass(frozen=True)
class PathMethod(Entry[Explainer]):
    """A named `PathAttribution`, all of whose settings are in one flat namespace.

    Attributes:
        parts: the default baseline and path, by name.
        offers: which of the two can be chosen; the others are what the method's name stands for.
        preset: settings in which the method departs from its parts' own defaults.
    """

    build: Callable[..., Explainer] = PathAttribution
    parts: Mapping[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ("baseline", "path")
    preset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults, with the default baseline and path."""
        return {name: self._part(name) for name in self.offers} | self._valid({})

    def __call__(self, **settings: Any) -> Explainer:
        """Build the method; settings beside its own go to the chosen baseline and path."""
        chosen = {name: settings.pop(name) for name in self.offers if name in settings}
        valid = self._valid(chosen)
        check_known(self.card.name, settings, dict.fromkeys(self.offers) | valid)
        values = {**valid, **settings}
        built = {name: values[name] for name in _OWN}
        for kind, registry in _PARTS.items():
            part = chosen.get(kind, self._part(kind))
            if isinstance(part, str):
                entry = registry[part]
                given = {name: values[name] for name in entry.settings}
                part = entry(**{k: v for k, v in given.items() if v is not Parameter.empty})
            built[kind] = part
        return self.build(**built)

    def _part(self, kind: str) -> str:
        return self.parts.get(kind, {"baseline": "black", "path": "straight"}[kind])

    def _valid(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        valid = dict(_OWN)
        for kind, registry in _PARTS.items():
            part = chosen.get(kind, self._part(kind))
            if isinstance(part, str):
                valid |= registry[part].settings
        return valid | {name: value for name, value in self.preset.items() if name in valid}


# `uni` departs from the paper in the search for the baseline: its raw steps overshoot on the sphere
# of radius epsilon, so that rounding alone decides where they end (docs/uni.md has the numbers).
_UNI = "Choi et al. 2025, arXiv 2410.08069"
methods.register(
    PathMethod(
        Card("uni", "unlearning", "UNI: from the unlearned baseline, our settings", _UNI),
        parts={"baseline": "unlearned"},
        offers=("path",),
        preset={
            "rule": "midpoint",
            "n_steps": 15,
            "gradient": "normalised",
            "matching_step_size": 0.12,
        },
    )
)
methods.register(
    PathMethod(
        Card("uni_paper", "unlearning", "UNI exactly as algorithm 1 of the paper", _UNI),
        parts={"baseline": "unlearned"},
        offers=("path",),
        preset={"rule": "right", "n_steps": 15},
    )
)
methods.register(
    PathMethod(
        Card(
            "ig",
            "path",
            "integrated gradients, from any baseline",
            "Sundararajan et al. 2017, arXiv 1703.01365",
        )
    )
)
methods.add(
    Card(
        "gradient",
        "gradient",
        "the gradient of the score at the input",
        "Simonyan et al. 2014, arXiv 1312.6034",
    ),
    lambda score="probability": Gradient(score),
)
methods.add(
    Card(
        "input_x_gradient",
        "gradient",
        "input times gradient",
        "Shrikumar et al. 2016, arXiv 1605.01713",
    ),
    lambda score="probability": Gradient(score, times_input=True),
)

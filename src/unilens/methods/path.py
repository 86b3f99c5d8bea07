"""The named settings of Score x Baseline x Path x Quadrature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter
from typing import Any

from ..attribution import Explainer, PathAttribution
from ..baselines import baselines
from ..paths import paths
from ..registry import Card, Entry, Registry, check_known
from .base import methods

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

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings that are valid with the baseline and path that are given."""
        chosen = {name: given[name] for name in self.offers if name in given}
        return dict.fromkeys(self.offers) | self._valid(chosen)

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

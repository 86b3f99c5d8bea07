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
from ..weightings import weightings
from .base import methods

_PARTS: dict[str, Registry[Any]] = {
    "baseline": baselines,
    "path": paths,
    "weighting": weightings,
}
_DEFAULTS = {"baseline": "black", "path": "straight", "weighting": "riemann"}
_OWN = {
    field.name: field.default
    for field in dataclasses.fields(PathAttribution)
    if field.name not in _PARTS
}


@dataclass(frozen=True)
class PathMethod(Entry[Explainer]):
    """A named `PathAttribution`, all of whose settings are in one flat namespace.

    Attributes:
        parts: the default baseline, path and weighting, by name.
        offers: which of the three can be chosen; the others are what the method's name stands for.
        preset: settings in which the method departs from its parts' own defaults.
    """

    build: Callable[..., Explainer] = PathAttribution
    parts: Mapping[str, str] = field(default_factory=dict)
    offers: tuple[str, ...] = ("baseline", "path", "weighting")
    preset: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """The names of the settings and their defaults, with those of the default parts."""
        return self.settings_with({})

    def settings_with(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings there are, and their defaults, with those of the chosen parts."""
        known = dict(_OWN)
        for kind, part in self._chosen(given).items():
            if isinstance(part, str):
                known |= _PARTS[kind][part].settings
        known |= {name: value for name, value in self.preset.items() if name in known}
        return {name: self._default(name) for name in self.offers} | known

    def __call__(self, **settings: Any) -> Explainer:
        """Build the method; settings beside its own go to the chosen parts."""
        valid = self.settings_with(settings)
        check_known(self.card.name, settings, valid)
        values = {**valid, **settings}
        built = {name: values[name] for name in _OWN}
        for kind, part in self._chosen(settings).items():
            if isinstance(part, str):
                entry = _PARTS[kind][part]
                own = {name: values[name] for name in entry.settings}
                part = entry(**{k: v for k, v in own.items() if v is not Parameter.empty})
            built[kind] = part
        if getattr(built["path"], "baseline", None) is not None and "baseline" not in settings:
            built["baseline"] = None
        return self.build(**built)

    def _default(self, kind: str) -> str:
        return self.parts.get(kind, _DEFAULTS[kind])

    def _chosen(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parts, chosen or default, by name or as objects."""
        chosen = {kind: given[kind] for kind in self.offers if kind in given}
        return {kind: chosen.get(kind, self._default(kind)) for kind in _PARTS}


# `uni` departs from the paper in the search for the baseline: its raw steps overshoot on the sphere
# of radius epsilon, so that rounding alone decides where they end (docs/uni.md has the numbers).
_UNI = "Choi et al. 2025, arXiv 2410.08069"
methods.register(
    PathMethod(
        Card("uni", "unlearning", "UNI: from the unlearned baseline, our settings", _UNI),
        parts={"baseline": "unlearned"},
        offers=("path", "weighting"),
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
        offers=("path", "weighting"),
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
methods.register(
    PathMethod(
        Card(
            "blur_ig",
            "path",
            "BlurIG: from a blurred image by less and less blur",
            "Xu et al. 2020, arXiv 2004.03383",
        ),
        parts={"path": "blur"},
        offers=("weighting",),
        preset={"rule": "midpoint"},
    )
)
methods.register(
    PathMethod(
        Card(
            "guided_ig",
            "path",
            "Guided IG: features with small gradients first, from any baseline",
            "Kapishnikov et al. 2021, arXiv 2106.09788",
        ),
        parts={"path": "guided"},
        offers=("baseline", "weighting"),
        preset={"rule": "left"},
    )
)
methods.register(
    PathMethod(
        Card(
            "sig",
            "path",
            "SIG: singular components of the difference, the largest first",
            "Kim et al. 2026, arXiv 2605.19607",
        ),
        parts={"path": "spectral"},
        offers=("baseline", "weighting"),
        preset={"rule": "midpoint"},
    )
)
methods.register(
    PathMethod(
        Card(
            "agi",
            "path",
            "AGI: back from the inputs at which other classes win",
            "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
            deterministic=False,
        ),
        parts={"baseline": "adversarial", "path": "walked"},
        offers=("weighting",),
        preset={"rule": "right", "n_steps": 20},
    )
)
methods.register(
    PathMethod(
        Card(
            "idgi",
            "path",
            "IDGI: the change of the score, shared by squared gradients",
            "Yang et al. 2023, arXiv 2303.14242",
        ),
        parts={"weighting": "idgi"},
        offers=("baseline", "path"),
        preset={"rule": "left"},
    )
)
methods.register(
    PathMethod(
        Card(
            "idg",
            "path",
            "IDG: gradients count where the score changes; not complete",
            "Walker et al. 2024, arXiv 2305.20052",
        ),
        parts={"weighting": "idg"},
        offers=("baseline", "path"),
        preset={"rule": "left"},
    )
)

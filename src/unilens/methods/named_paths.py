"""The named settings of Score x Baseline x Path x Weighting x Quadrature."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..baselines import baselines
from ..errors import UnilensError
from ..explainer import Method
from ..path_attribution import PathAttribution
from ..paths import paths, to_path
from ..registry import Card, Composed
from ..weightings import weightings
from .base import methods

_DEFAULTS = {"baseline": "black", "path": "straight", "weighting": "riemann"}


class PathMethod(Composed[Method]):
    """A named `PathAttribution`; a path with a baseline of its own replaces the default one."""

    def _chosen(self, given: Mapping[str, Any]) -> dict[str, Any]:
        chosen = super()._chosen(given)
        path = chosen["path"]
        chosen_path = paths[path]() if isinstance(path, str) else to_path(path)
        if chosen_path.baseline is None or "baseline" in given:
            return chosen
        if self.default_components["baseline"] != _DEFAULTS["baseline"]:
            raise UnilensError(
                f"expected a path without a baseline for {self.card.name}, which has one, got "
                f"path={path!r}, which has one too; use another path, or method='ig'"
            )
        return chosen | {"baseline": None}


def _add(
    card: Card,
    default_components: Mapping[str, str] | None = None,
    selectable: tuple[str, ...] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    methods.register(
        PathMethod(
            card,
            PathAttribution,
            {"baseline": baselines, "path": paths, "weighting": weightings},
            _DEFAULTS | dict(default_components or {}),
            selectable,
            overrides or {},
        )
    )


# Rounding changes the maps of methods with `higher_precision` by a quarter and more on networks
# with kinks: docs/paths.md and docs/uni.md have the numbers.
_PAPER = "Choi et al. 2025, arXiv 2410.08069"
_SEARCHED = {"baseline": "unlearned"}
_SELECTABLE = ("path", "weighting")
_add(
    Card(
        "uni_blur",
        "unlearning",
        "why this class, compared with the same picture out of focus?",
        "this package, after Choi et al. 2025, arXiv 2410.08069",
        traits=("passes_at_most",),
    ),
    default_components={**_SEARCHED, "weighting": "gains"},
    selectable=_SELECTABLE,
    overrides={
        "rule": "midpoint",
        "n_steps": 15,
        "origin": "auto",
        "matching_steps": 1,
        "projection": "ball",
        "line_search": True,
    },
)
_add(
    Card(
        "uni",
        "unlearning",
        "UNI: why is the model surer here than right beside?",
        f"{_PAPER}, algorithm 1, with normalised gradients and midpoints",
    ),
    default_components=_SEARCHED,
    selectable=_SELECTABLE,
    overrides={
        "rule": "midpoint",
        "n_steps": 15,
        "gradient": "normalised",
        "matching_step_size": 0.12,
    },
)
_add(
    Card(
        "uni_paper",
        "unlearning",
        "UNI to the letter of algorithm 1; rounding decides some maps",
        f"{_PAPER}, algorithm 1",
        higher_precision=True,
    ),
    default_components=_SEARCHED,
    selectable=_SELECTABLE,
    overrides={"rule": "right", "n_steps": 15},
)
_add(
    Card(
        "ig",
        "path",
        "integrated gradients, from any baseline",
        "Sundararajan et al. 2017, arXiv 1703.01365",
    )
)
_add(
    Card(
        "blur_ig",
        "path",
        "BlurIG: the path from a blurred image to the image by decreasing blur",
        "Xu et al. 2020, arXiv 2004.03383",
        traits=("images",),
    ),
    default_components={"path": "blur"},
    selectable=("weighting",),
    overrides={"rule": "midpoint"},
)
_add(
    Card(
        "guided_ig",
        "path",
        "Guided IG: features with small gradients first, from any baseline",
        "Kapishnikov et al. 2021, arXiv 2106.09788",
        higher_precision=True,
    ),
    default_components={"path": "guided"},
    selectable=("baseline", "weighting"),
    overrides={"rule": "left"},
)
_add(
    Card(
        "sig",
        "path",
        "SIG: adds the singular components of the difference, the largest first",
        "Kim et al. 2026, arXiv 2605.19607",
        traits=("images",),
    ),
    default_components={"path": "spectral"},
    selectable=("baseline", "weighting"),
    overrides={"rule": "midpoint"},
)
_add(
    Card(
        "agi",
        "path",
        "AGI: the paths of attacks towards other classes, back to the input",
        "Pan et al. 2021, IJCAI, doi 10.24963/ijcai.2021/396",
        deterministic=False,
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    default_components={"baseline": "adversarial", "path": "trajectory"},
    selectable=("weighting",),
    overrides={"rule": "right", "n_steps": 20},
)
_add(
    Card(
        "mfaba",
        "path",
        "MFABA: the path of an attack on the target, with the gradients of the attack",
        "Zhu et al. 2024, arXiv 2312.13630",
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    default_components={"baseline": "boundary", "path": "trajectory"},
    selectable=("weighting",),
    overrides={"rule": "right", "n_steps": 50},
)
_add(
    Card(
        "ig2",
        "path",
        "IG2: descent to the representation of references=(R, *S) of other classes",
        "Zhuo, Ge 2024, arXiv 2406.10852",
        higher_precision=True,
        traits=("passes_at_most",),
    ),
    default_components={"baseline": "counterfactual", "path": "trajectory"},
    selectable=("weighting",),
    overrides={"rule": "right", "n_steps": 201},
)
_add(
    Card(
        "fringe_b",
        "path",
        "FRInGe-B: a Fisher-Rao path to an input that says nothing about the target",
        "Martino, Tschiatschek 2026, arXiv 2605.06404",
        higher_precision=True,
    ),
    default_components={"baseline": "fisher_rao", "path": "trajectory"},
    selectable=("weighting",),
    overrides={"rule": "trapezoid", "n_steps": 61, "score": "logit"},
)
_add(
    Card(
        "idgi",
        "path",
        "IDGI: the change of the score, shared by squared gradients",
        "Yang et al. 2023, arXiv 2303.14242",
    ),
    default_components={"weighting": "idgi"},
    selectable=("baseline", "path"),
    overrides={"rule": "left"},
)
_add(
    Card(
        "idg",
        "path",
        "IDG: gradients count where the score changes; not complete",
        "Walker et al. 2024, arXiv 2305.20052",
        traits=("incomplete",),
    ),
    default_components={"weighting": "idg"},
    selectable=("baseline", "path"),
    overrides={"rule": "left"},
)

"""What a map is for, which metrics judge it, and the methods that race for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from ...methods import methods
from ...registry import Registry
from ...specs import read_specs

CONTROLS = ("random", "edges")
"""Maps that do not depend on the model."""


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a map is for.

    Attributes:
        name: in code.
        words: for readers.
        metrics: that judge it, each with its sign in their sum, of which more is better.
    """

    name: str
    words: str
    metrics: Mapping[str, int]


INSERTION = "insertion_auc:imputer=blur,cells=14"
REGION = Purpose(
    "region", "find the region", {INSERTION: 1, "deletion_auc:imputer=blur,cells=14": -1}
)
"""Insertion minus deletion: of the two orders of removal, their difference depends least on the
fill (Blücher et al. 2024, arXiv 2401.06654). Whole cells go, so that single pixels cannot act as an
attack, and blur leaves no hard edges."""
RANKING = Purpose("ranking", "rank pixels", {"mu_fidelity:imputer=blur,subsets=100": 1})
STABILITY = Purpose("stability", "stay stable", {"noise_spearman": 1})
COST = Purpose("cost", "be cheap", {})
RACED = (REGION, RANKING)
"""The purposes that methods race for; the others are asked of those that do well."""
PURPOSES = (REGION, RANKING, STABILITY, COST)

_STEPS = 15
"""Of paths, in place of a default of more."""
_SETTINGS = {
    "ig": ("n_steps=15", "n_steps=15,baseline=blur"),
    "agi": ("n_steps=20,classes=2,iterations=10",),
    "smoothgrad": ("n_samples=8",),
    "vargrad": ("n_samples=8",),
    "squaregrad": ("n_samples=8",),
    "rise": ("n_masks=100",),
    "shapley": ("n_permutations=4",),
    "sobol": ("designs=1",),
    "deeplift_shap": ("references=[chelsea,coffee]",),
}
"""Settings that cost less than a method's defaults, which can take minutes for a map."""


def candidates(side: int) -> list[str]:
    """Return every method but the controls, with settings that are cheap enough for a race.

    Args:
        side: of the model's input, in pixels.
    """
    window = max(1, round(side / 7))
    settings = {**_SETTINGS, "occlusion": (f"window={window},stride={window}",)}
    names = [name for name in methods if name not in CONTROLS]
    return [
        f"{name}:{text}" if text else name
        for name in names
        for text in settings.get(name, (_cheaper(name),))
    ]


def _cheaper(name: str) -> str:
    """Return settings for a method of which nothing is known but its defaults."""
    defaults: Mapping[str, Any] = methods[name].settings_with({})
    steps = [f"n_steps={_STEPS}"] if (defaults.get("n_steps") or 0) > _STEPS else []
    references = ["references=samples"] if "references" in defaults else []
    return ",".join([*steps, *references])


def check_methods(given: list[str]) -> list[str]:
    """Return methods without the controls, which race anyway; raise where one is unknown."""
    specs = read_specs(cast(Registry[Any], methods), given)
    return [text for text, spec in specs.items() if spec.name not in CONTROLS]

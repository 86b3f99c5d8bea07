"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Measurement, Metric, MetricCard, Subject, evaluate, metrics
from .fills import Fill, Replacement, fills
from .similarities import (
    LensRecall,
    Similarity,
    Spearman,
    StructuralSimilarity,
    TopK,
    similarities,
)
from .corruptions import Corruption, corruptions
from .removal import Deletion, Insertion, MuFidelity
from .perturbations import (
    Corrupted,
    LabelAttack,
    Noise,
    Perturbation,
    Perturbed,
    perturbations,
)
from .attack import Attack, FastAttack
from .robustness import Robustness
from .sensitivity import LocalLipschitz, MaxSensitivity, MeanSensitivity

__all__ = [
    "Attack",
    "Corrupted",
    "Corruption",
    "Deletion",
    "FastAttack",
    "Fill",
    "Insertion",
    "LabelAttack",
    "LensRecall",
    "LocalLipschitz",
    "MaxSensitivity",
    "MeanSensitivity",
    "Measurement",
    "Metric",
    "MetricCard",
    "MuFidelity",
    "Noise",
    "Perturbation",
    "Perturbed",
    "Replacement",
    "Robustness",
    "Similarity",
    "Spearman",
    "StructuralSimilarity",
    "Subject",
    "TopK",
    "corruptions",
    "evaluate",
    "fills",
    "metrics",
    "perturbations",
    "similarities",
]

"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Measurement, Metric, MetricCard, Subject, evaluate, metrics
from .fills import Fill, Replacement, fills
from .similarities import Similarity, Spearman, TopK, similarities
from .removal import Deletion, Insertion, MuFidelity
from .inpaint import Inpaint
from .road import Road, SensitivityN
from .perturbations import Gaussian, Perturbation, Square, Subset, perturbations
from .infidelity import Infidelity
from .information import InformationCurve, accuracy
from .path import CompletenessGap, ConfidenceChange, Monotonicity, PathCurvature, Stability
from .geometry import Lpips, TopEigenvalue

__all__ = [
    "CompletenessGap",
    "ConfidenceChange",
    "Deletion",
    "Fill",
    "Gaussian",
    "Infidelity",
    "InformationCurve",
    "Inpaint",
    "Insertion",
    "Lpips",
    "Measurement",
    "Metric",
    "MetricCard",
    "Monotonicity",
    "MuFidelity",
    "PathCurvature",
    "Perturbation",
    "Replacement",
    "Road",
    "SensitivityN",
    "Similarity",
    "Spearman",
    "Square",
    "Stability",
    "Subject",
    "Subset",
    "TopEigenvalue",
    "TopK",
    "accuracy",
    "evaluate",
    "fills",
    "metrics",
    "perturbations",
    "similarities",
]

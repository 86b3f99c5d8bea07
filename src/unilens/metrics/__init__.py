"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Measurement, Metric, MetricCard, Subject, evaluate, metrics
from .fills import Fill, Replacement, fills
from .similarities import Similarity, Spearman, TopK, similarities
from .corruptions import Corruption, corruptions
from .removal import Deletion, Insertion, MuFidelity
from .localisation import PointingGame, RelevanceMass, RelevanceRank
from .sanity import RandomLogit, Randomisation
from .picture import PictureSimilarity
from .consistency import Consistency
from .inpaint import Inpaint
from .road import Road, SensitivityN
from .disturbances import Gaussian, Disturbance, Square, Subset, disturbances
from .infidelity import Infidelity
from .information import InformationCurve, accuracy
from .path import CompletenessGap, ConfidenceChange, Monotonicity, PathCurvature, Stability
from .geometry import Lpips, TopEigenvalue

__all__ = [
    "CompletenessGap",
    "ConfidenceChange",
    "Consistency",
    "Corruption",
    "Deletion",
    "Disturbance",
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
    "PictureSimilarity",
    "PointingGame",
    "RandomLogit",
    "Randomisation",
    "RelevanceMass",
    "RelevanceRank",
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
    "corruptions",
    "disturbances",
    "evaluate",
    "fills",
    "metrics",
    "similarities",
]

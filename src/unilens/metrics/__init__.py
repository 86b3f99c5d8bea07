"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Measurement, Metric, MetricCard, Subject, evaluate, metrics
from .memo import Memo
from .fills import Fill, Replacement, fills
from .inpaint import Inpaint
from .similarities import LensRecall, Similarity, Spearman, StructuralSimilarity, TopK, similarities
from .corruptions import Corruption, corruptions
from .disturbances import Disturbance, Gaussian, Square, Subset, disturbances
from .removal import Deletion, Insertion, MuFidelity
from .road import Road, SensitivityN
from .infidelity import Infidelity
from .information import InformationCurve, accuracy
from .perturbations import Corrupted, LabelAttack, Noise, Perturbation, Perturbed, perturbations
from .attack import Attack, FastAttack
from .robustness import Robustness
from .sensitivity import LocalLipschitz, MaxSensitivity, MeanSensitivity
from .path import CompletenessGap, ConfidenceChange, Monotonicity, PathCurvature, Stability
from .geometry import Lpips, TopEigenvalue
from .sanity import RandomLogit, Randomisation
from .picture import PictureSimilarity
from .consistency import Consistency
from .alignment import TangentAlignment
from .localisation import PointingGame, RelevanceMass, RelevanceRank

__all__ = [
    "Attack",
    "CompletenessGap",
    "ConfidenceChange",
    "Consistency",
    "Corrupted",
    "Corruption",
    "Deletion",
    "Disturbance",
    "FastAttack",
    "Fill",
    "Gaussian",
    "Infidelity",
    "InformationCurve",
    "Inpaint",
    "Insertion",
    "LabelAttack",
    "LensRecall",
    "LocalLipschitz",
    "Lpips",
    "MaxSensitivity",
    "MeanSensitivity",
    "Measurement",
    "Memo",
    "Metric",
    "MetricCard",
    "Monotonicity",
    "MuFidelity",
    "Noise",
    "PathCurvature",
    "Perturbation",
    "Perturbed",
    "PictureSimilarity",
    "PointingGame",
    "RandomLogit",
    "Randomisation",
    "RelevanceMass",
    "RelevanceRank",
    "Replacement",
    "Road",
    "Robustness",
    "SensitivityN",
    "Similarity",
    "Spearman",
    "Square",
    "Stability",
    "StructuralSimilarity",
    "Subject",
    "Subset",
    "TangentAlignment",
    "TopEigenvalue",
    "TopK",
    "accuracy",
    "corruptions",
    "disturbances",
    "evaluate",
    "fills",
    "metrics",
    "perturbations",
    "similarities",
]

"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Metric
from .registry import evaluate, metrics
from .context import EvalContext
from ..registry import MetricCard
from .measurement import Measurement
from .cache import MetricCache
from .faithfulness.imputers import Imputer, Replacement, imputers
from .faithfulness.inpaint import Inpaint
from .similarities import LensRecall, Similarity, Spearman, StructuralSimilarity, TopK, similarities
from .robustness.corruptions import Corruption, corruptions
from .faithfulness.perturbations import (
    InfidelityPerturbation,
    Gaussian,
    Square,
    Subset,
    infidelity_perturbations,
)
from .faithfulness.removal import Deletion, Insertion, MuFidelity
from .faithfulness.magnitude_alignment import MasDeletion, MasInsertion
from .faithfulness.road import Road, SensitivityN
from .faithfulness.non_sensitivity import NonSensitivity
from .faithfulness.infidelity import Infidelity
from .robustness.perturbations import (
    CorruptionPerturbation,
    Perturbation,
    PerturbedInputs,
    perturbations,
)
from .robustness.bounded import LabelAttack, Noise
from .robustness.attack import Attack, FastAttack
from .robustness.measure import Robustness
from .robustness.sensitivity import LocalLipschitz, MaxSensitivity, MeanSensitivity
from .robustness.relative_stability import (
    RelativeInputStability,
    RelativeOutputStability,
    RelativeRepresentationStability,
)
from .path.measures import CompletenessGap, ConfidenceChange, Monotonicity, PathCurvature, Stability
from .path.baseline_quality import Lpips, TopEigenvalue
from .sanity.randomisation import RandomLogit, Randomisation
from .sanity.mprt import EfficientRandomisation, SmoothRandomisation
from .sanity.input_shift import InputInvariance
from .sanity.edges import EdgeControl
from .robustness.consistency import Consistency
from .alignment import TangentAlignment
from .complexity import Complexity, MstCompactness, Sparseness
from .localisation import PointingGame, RelevanceMass, RelevanceRank
from .parts import SingleDeletion

__all__ = [
    "Attack",
    "CompletenessGap",
    "Complexity",
    "ConfidenceChange",
    "Consistency",
    "Corruption",
    "CorruptionPerturbation",
    "Deletion",
    "EdgeControl",
    "EfficientRandomisation",
    "EvalContext",
    "FastAttack",
    "Gaussian",
    "Imputer",
    "Infidelity",
    "InfidelityPerturbation",
    "Inpaint",
    "InputInvariance",
    "Insertion",
    "LabelAttack",
    "LensRecall",
    "LocalLipschitz",
    "Lpips",
    "MasDeletion",
    "MasInsertion",
    "MaxSensitivity",
    "MeanSensitivity",
    "Measurement",
    "Metric",
    "MetricCache",
    "MetricCard",
    "Monotonicity",
    "MstCompactness",
    "MuFidelity",
    "Noise",
    "NonSensitivity",
    "PathCurvature",
    "Perturbation",
    "PerturbedInputs",
    "PointingGame",
    "RandomLogit",
    "Randomisation",
    "RelativeInputStability",
    "RelativeOutputStability",
    "RelativeRepresentationStability",
    "RelevanceMass",
    "RelevanceRank",
    "Replacement",
    "Road",
    "Robustness",
    "SensitivityN",
    "Similarity",
    "SingleDeletion",
    "SmoothRandomisation",
    "Sparseness",
    "Spearman",
    "Square",
    "Stability",
    "StructuralSimilarity",
    "Subset",
    "TangentAlignment",
    "TopEigenvalue",
    "TopK",
    "corruptions",
    "evaluate",
    "imputers",
    "infidelity_perturbations",
    "metrics",
    "perturbations",
    "similarities",
]

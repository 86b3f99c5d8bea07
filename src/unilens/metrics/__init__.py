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

__all__ = [
    "Consistency",
    "Corruption",
    "Deletion",
    "Fill",
    "Insertion",
    "Measurement",
    "Metric",
    "MetricCard",
    "MuFidelity",
    "PictureSimilarity",
    "PointingGame",
    "RandomLogit",
    "Randomisation",
    "RelevanceMass",
    "RelevanceRank",
    "Replacement",
    "Similarity",
    "Spearman",
    "Subject",
    "TopK",
    "corruptions",
    "evaluate",
    "fills",
    "metrics",
    "similarities",
]

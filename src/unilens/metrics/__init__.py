"""The named metrics, and the function that runs one."""

# The order of these imports is the order in which metrics are listed.
# ruff: isort: off
from .base import Measurement, Metric, MetricCard, Subject, evaluate, metrics
from .fills import Fill, Replacement, fills
from .similarities import Similarity, Spearman, TopK, similarities
from .corruptions import Corruption, corruptions
from .removal import Deletion, Insertion, MuFidelity

__all__ = [
    "Corruption",
    "Deletion",
    "Fill",
    "Insertion",
    "Measurement",
    "Metric",
    "MetricCard",
    "MuFidelity",
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

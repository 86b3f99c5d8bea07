"""Explanations of tables: named columns, words and missing values as the model takes them."""

from .attribution import Contribution, TableAttribution
from .explaining import explain
from .groups import Group
from .pictures import bars, beeswarm, waterfall

__all__ = [
    "Contribution",
    "Group",
    "TableAttribution",
    "bars",
    "beeswarm",
    "explain",
    "waterfall",
]

"""Weightings: how much the gradient at each step of a path counts."""

# The order of these imports is the order in which weightings are listed.
# ruff: isort: off
from .base import Factors, FunctionWeighting, Riemann, Weighting, to_weighting, weightings
from .idgi import ImportantDirection
from .gains import Gains
from .idg import DecisionGradients

__all__ = [
    "DecisionGradients",
    "Factors",
    "FunctionWeighting",
    "Gains",
    "ImportantDirection",
    "Riemann",
    "Weighting",
    "to_weighting",
    "weightings",
]

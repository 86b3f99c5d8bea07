"""Weightings: how much the gradient at each step of a path counts."""

from .base import DecisionGradients, Gains, ImportantDirection, Riemann, Weighting, weightings

__all__ = [
    "DecisionGradients",
    "Gains",
    "ImportantDirection",
    "Riemann",
    "Weighting",
    "weightings",
]

"""The named methods, and the function that runs one."""

# The order of these imports is the order in which methods are listed.
# ruff: isort: off
from .base import explain, methods
from .path import PathMethod
from .gradient import Gradient
from .smoothing import Smoothed
from .expected import ExpectedGradients
from .neutral import Neutral

__all__ = [
    "ExpectedGradients",
    "Gradient",
    "Neutral",
    "PathMethod",
    "Smoothed",
    "explain",
    "methods",
]

"""The named methods, and the function that runs one."""

# The order of these imports is the order in which methods are listed.
# ruff: isort: off
from .base import explain, methods
from .path import PathMethod
from .gradient import Gradient
from .hooks import Deconvolution, DeepLift, DeepLiftShap, GuidedBackprop

__all__ = [
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "Gradient",
    "GuidedBackprop",
    "PathMethod",
    "explain",
    "methods",
]

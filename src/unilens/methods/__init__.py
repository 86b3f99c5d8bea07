"""The named methods, and the function that runs one."""

# The order of these imports is the order in which methods are listed.
# ruff: isort: off
from .base import explain, methods
from .path import PathMethod
from .gradient import Gradient
from .cam import GradCAM, GuidedGradCAM
from .hooks import Deconvolution, DeepLift, DeepLiftShap, GuidedBackprop
from .black_box import Occlusion, Rise, Sobol

__all__ = [
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "GuidedGradCAM",
    "Occlusion",
    "PathMethod",
    "Rise",
    "Sobol",
    "explain",
    "methods",
]

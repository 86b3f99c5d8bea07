"""The named methods, and `explain`, which runs one of them."""

# The order of these imports is the order in which methods are listed.
# ruff: isort: off
from .base import explain, methods
from .named_paths import PathMethod
from .gradient import Gradient
from .smoothing import Smoothed
from .expected import ExpectedGradients
from .neutral import Neutral
from .backprop_rules import Deconvolution, DeepLift, DeepLiftShap, GuidedBackprop
from .cam import GradCAM, GuidedGradCAM
from .perturbation.occlusion import Occlusion
from .perturbation.rise import Rise
from .perturbation.shapley import Shapley
from .perturbation.sobol import Sobol
from .control import EdgeMap, RandomMap

__all__ = [
    "Deconvolution",
    "DeepLift",
    "DeepLiftShap",
    "EdgeMap",
    "ExpectedGradients",
    "GradCAM",
    "Gradient",
    "GuidedBackprop",
    "GuidedGradCAM",
    "Neutral",
    "Occlusion",
    "PathMethod",
    "RandomMap",
    "Rise",
    "Shapley",
    "Smoothed",
    "Sobol",
    "explain",
    "methods",
]

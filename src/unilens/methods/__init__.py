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
from .attention import GradientRollout, LeGrad, Rollout
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
    "GradientRollout",
    "GuidedBackprop",
    "GuidedGradCAM",
    "LeGrad",
    "Neutral",
    "Occlusion",
    "PathMethod",
    "RandomMap",
    "Rise",
    "Rollout",
    "Shapley",
    "Smoothed",
    "Sobol",
    "explain",
    "methods",
]

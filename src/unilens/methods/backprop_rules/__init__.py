"""Methods that replace the derivatives of activations by rules."""

from .deeplift import DeepLift, DeepLiftShap
from .relu import Deconvolution, GuidedBackprop

__all__ = ["Deconvolution", "DeepLift", "DeepLiftShap", "GuidedBackprop"]

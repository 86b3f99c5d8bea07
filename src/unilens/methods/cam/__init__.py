"""Class activation maps: the spatial positions of a layer's output that raise the score."""

from .gradcam import GradCAM, GuidedGradCAM

__all__ = ["GradCAM", "GuidedGradCAM"]

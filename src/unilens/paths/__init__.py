"""Paths: the way from the baseline to the input."""

from .._engine.score_gradient import ScoreGradient
from .base import Leg, Path, along, paths
from .blur import BlurPath
from .guided import GuidedPath
from .spectral import SpectralPath
from .straight import StraightLine
from .walked import Walked

__all__ = [
    "BlurPath",
    "GuidedPath",
    "Leg",
    "Path",
    "ScoreGradient",
    "SpectralPath",
    "StraightLine",
    "Walked",
    "along",
    "paths",
]

"""Paths: the way from the baseline to the input."""

from .._engine.score_gradient import ScoreGradient
from .base import Path, PathChunk, along, paths
from .blur import BlurPath
from .guided import GuidedPath
from .spectral import SpectralPath
from .straight import StraightLine
from .trajectory import TrajectoryPath

__all__ = [
    "BlurPath",
    "GuidedPath",
    "Path",
    "PathChunk",
    "ScoreGradient",
    "SpectralPath",
    "StraightLine",
    "TrajectoryPath",
    "along",
    "paths",
]

"""Paths from a baseline to an input."""

from .._engine.score_gradient import ScoreGradient
from .base import Curve, FunctionPath, Path, PathChunk, paths, to_path
from .blur import BlurPath
from .guided import GuidedPath
from .spectral import SpectralPath
from .straight import StraightLine
from .trajectory import TrajectoryPath

__all__ = [
    "BlurPath",
    "Curve",
    "FunctionPath",
    "GuidedPath",
    "Path",
    "PathChunk",
    "ScoreGradient",
    "SpectralPath",
    "StraightLine",
    "TrajectoryPath",
    "paths",
    "to_path",
]

"""Paths: the way from the baseline to the input."""

from .base import Leg, Path, paths
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
    "SpectralPath",
    "StraightLine",
    "Walked",
    "paths",
]

"""Paths: the way from the baseline to the input."""

from .base import Leg, Path, paths
from .straight import StraightLine

__all__ = ["Leg", "Path", "StraightLine", "paths"]

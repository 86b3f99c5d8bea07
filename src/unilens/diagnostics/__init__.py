"""Traces of the passes along a path, the measurements of a path, and the named warnings."""

from .measures import (
    confidence_change,
    confidence_fallback,
    flat_fraction,
    lanczos_curvature,
    monotonicity,
    proximity,
    riemann_error_bound,
    stability,
    top_curvature,
)
from .trace import Recorder, Trace, mean_trace
from .warnings import LEVELS, WARNINGS, WarningRule, highest_level, verdict, warn

__all__ = [
    "LEVELS",
    "WARNINGS",
    "Recorder",
    "Trace",
    "WarningRule",
    "confidence_change",
    "confidence_fallback",
    "flat_fraction",
    "highest_level",
    "lanczos_curvature",
    "mean_trace",
    "monotonicity",
    "proximity",
    "riemann_error_bound",
    "stability",
    "top_curvature",
    "verdict",
    "warn",
]

"""What the passes along a path show, what is measured of it, and the warnings."""

from .measures import (
    confidence_change,
    flat_fraction,
    lanczos_curvature,
    monotonicity,
    proximity,
    riemann_error_bound,
    stability,
    top_curvature,
)
from .trace import Recorder, Trace, mean_trace
from .warnings import WARNINGS, Warned, warn

__all__ = [
    "WARNINGS",
    "Recorder",
    "Trace",
    "Warned",
    "confidence_change",
    "flat_fraction",
    "lanczos_curvature",
    "mean_trace",
    "monotonicity",
    "proximity",
    "riemann_error_bound",
    "stability",
    "top_curvature",
    "warn",
]

"""Scores: the number that is explained, for each input.

A score of a class is a function of outputs `(M, K)` and targets `(M,)`, by name or by itself. A
score of whatever a model returns is a function of that alone, or one of the ready ones:
`segmentation`, `detection`, `similarity`, `regression` and `forecast`.
"""

from .base import OutputScore, as_output_score
from .bound import BoundScore, bind
from .classes import (
    AnyScore,
    Score,
    log_probability,
    logit,
    margin,
    probability,
    resolve,
    scores,
    sigmoid,
)
from .detection import detection
from .segmentation import segmentation
from .values import forecast, regression, similarity

__all__ = [
    "AnyScore",
    "BoundScore",
    "OutputScore",
    "Score",
    "as_output_score",
    "bind",
    "detection",
    "forecast",
    "log_probability",
    "logit",
    "margin",
    "probability",
    "regression",
    "resolve",
    "scores",
    "segmentation",
    "sigmoid",
    "similarity",
]

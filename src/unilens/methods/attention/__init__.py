"""Maps of a transformer's attention: how much the class's tokens take from each of the others."""

# The order of these imports is the order in which methods are listed.
# ruff: isort: off
from .rollout import GradientRollout, Rollout
from .legrad import LeGrad

__all__ = ["GradientRollout", "LeGrad", "Rollout"]

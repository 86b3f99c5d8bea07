"""Models, methods and metrics over a data set: planned, run, kept, and reported."""

from .plan import Plan, read_plan
from .runner import run
from .store import Store

__all__ = ["Plan", "Store", "read_plan", "run"]

"""The command line: explain photographs, evaluate maps, list what there is."""

from . import benchmark, evaluate, explain, listing
from .app import main

__all__ = ["benchmark", "evaluate", "explain", "listing", "main"]

"""The command line: explain photographs, evaluate maps, benchmark methods, list what there is."""

from . import benchmark, evaluate, explain, listing, report
from .app import main

__all__ = ["benchmark", "evaluate", "explain", "listing", "main", "report"]

"""The command line: explain photographs, evaluate maps, report on runs, list what there is."""

from . import evaluate, explain, listing, report
from .app import main

__all__ = ["evaluate", "explain", "listing", "main", "report"]

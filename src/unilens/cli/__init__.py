"""The command line: explain photographs, evaluate maps, list what there is."""

from . import evaluate, explain, listing
from .app import main

__all__ = ["evaluate", "explain", "listing", "main"]

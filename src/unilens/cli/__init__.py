"""The command line: explain photographs, evaluate maps, benchmark methods, open the page."""

from . import benchmark, evaluate, explain, listing, manifold, page, report
from .app import main

__all__ = ["benchmark", "evaluate", "explain", "listing", "main", "manifold", "page", "report"]

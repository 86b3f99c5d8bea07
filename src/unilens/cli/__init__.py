"""The command line: explain photographs and texts, evaluate, benchmark, open the page."""

from . import benchmark, evaluate, explain, explain_text, listing, manifold, page, report
from .app import main

__all__ = [
    "benchmark",
    "evaluate",
    "explain",
    "explain_text",
    "listing",
    "main",
    "manifold",
    "page",
    "report",
]

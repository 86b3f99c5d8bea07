"""The command line: explain photographs and texts, evaluate, benchmark, open the page."""

from . import benchmark, evaluate, explain, explain_text, listing, page, report
from .app import main

__all__ = ["benchmark", "evaluate", "explain", "explain_text", "listing", "main", "page", "report"]

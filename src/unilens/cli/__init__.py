"""The command line: explain photographs and texts, evaluate, benchmark, open the page."""

from . import evaluate, explain, explain_match, explain_table, explain_text, listing, page
from .app import add_missing_command, main

try:
    from . import benchmark, manifold, report
except ModuleNotFoundError as error:
    for name in ("benchmark", "report", "query", "manifold"):
        add_missing_command(name, "benchmark", error)

__all__ = [
    "benchmark",
    "evaluate",
    "explain",
    "explain_match",
    "explain_table",
    "explain_text",
    "listing",
    "main",
    "manifold",
    "page",
    "report",
]

"""The command line: explain photographs and texts, evaluate, benchmark, open the page."""

from . import evaluate, explain, explain_text, listing, page
from .app import main
from .missing import stand_in

try:
    from . import benchmark, manifold, report
except ModuleNotFoundError as error:
    stand_in(("benchmark", "report", "query", "manifold"), "benchmark", error)

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

"""The command line: explain photographs, evaluate maps, benchmark methods, open the page."""

from . import evaluate, explain, listing, page
from .app import main
from .missing import stand_in

try:
    from . import benchmark, report
except ModuleNotFoundError as error:
    stand_in(("benchmark", "report", "query"), "benchmark", error)

__all__ = ["benchmark", "evaluate", "explain", "listing", "main", "page", "report"]

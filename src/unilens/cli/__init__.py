"""The command line: explain photographs and texts, evaluate, benchmark, open the page.

The commands' modules load neither torch nor what needs it before a command runs: their functions
import it.
"""

# The order of these imports is the order in which commands are listed.
# ruff: isort: off
from . import explain
from . import explain_text
from . import explain_table
from . import explain_match
from . import evaluate
from . import audit
from . import recommend
from . import benchmark
from . import report
from . import reproduce
from . import page
from . import listing
from . import doctor
from . import manifold
from .app import main

__all__ = [
    "audit",
    "benchmark",
    "doctor",
    "evaluate",
    "explain",
    "explain_match",
    "explain_table",
    "explain_text",
    "listing",
    "main",
    "manifold",
    "page",
    "recommend",
    "report",
    "reproduce",
]

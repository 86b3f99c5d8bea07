"""What comes after a run: its report, the comparison of two, and questions in SQL."""

from .comparison import write_comparison
from .page import write_report
from .queries import query

__all__ = ["query", "write_comparison", "write_report"]

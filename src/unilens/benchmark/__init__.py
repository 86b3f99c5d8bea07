"""Models, methods and metrics over a data set: planned, run, kept, and reported."""

try:
    from .plan import Plan, read_plan
    from .runner import run
    from .store import Store
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"unilens.benchmark needs {error.name}; run: pip install 'unilens[benchmark]'",
        name=error.name,
    ) from error

__all__ = ["Plan", "Store", "read_plan", "run"]

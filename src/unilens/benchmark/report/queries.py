"""SQL over the rows of a run, without access to anything else."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import duckdb
import psutil
import pyarrow

from ...errors import UnilensError, first_line, require
from ..rows import SCHEMA
from ..store import Store

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "temp_directory": "",  # which SQL may read and write, wherever it is
}
SECONDS = 300.0
"""Time of a query."""
_MEMORY_BYTES, _MEMORY_SHARE = 4 * 2**30, 0.5
_MAX_CELLS = 20_000_000
_FETCHED = 10_000
_TOO_LARGE = "expected a query of at most {:.1f} GB of memory, and this one takes more; simplify it"


@contextmanager
def opened(
    limits: Mapping[str, str] | None = None, /, **stores: Store
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the rows of each store as a view of that name, and no files.

    Broken files are left out, which a warning says.

    Args:
        limits: further settings of DuckDB.
        stores: runs by the names of their views.
    """
    connection = duckdb.connect(":memory:", config=_CLOSED | dict(limits or {}))
    try:
        for name, store in stores.items():
            connection.register(name, store.dataset())
        connection.execute("SET lock_configuration = true")
        yield connection
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(stores, error) from error
    except duckdb.Error as error:
        if _is_unreadable(error):
            raise _unreadable(stores, error) from error
        raise
    finally:
        connection.close()


def query(store: Store, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows of an SQL query over the view `rows`.

    Args:
        store: the run.
        sql: in DuckDB's dialect, without access to files; changes are discarded.

    Raises:
        UnilensError: the query is invalid or not allowed, or takes too long, too much memory, or
            returns too much.
    """
    with opened({"memory_limit": f"{_memory()}B"}, rows=store) as connection:
        try:
            with _bounded(connection):
                connection.execute(sql)
                columns = connection.description
                rows = _fetch(connection, len(columns)) if columns else []
        except duckdb.Error as error:
            if _is_unreadable(error):
                raise
            raise UnilensError(_message(error)) from error
        except MemoryError as error:
            raise UnilensError(_TOO_LARGE.format(_memory() / 2**30)) from error
    if not columns:
        raise UnilensError('expected a query, such as "SELECT count(*) FROM rows", got none')
    return [column[0] for column in columns], rows


@contextmanager
def _bounded(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt a query after `SECONDS`, and bound the memory that DuckDB itself does not count."""
    timer = threading.Timer(SECONDS, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        with _address_space(2 * _memory()):
            yield
    finally:
        timer.cancel()


@contextmanager
def _address_space(more: int) -> Iterator[None]:
    """Bound how much further address space this process may take, on POSIX systems."""
    try:
        import resource
    except ImportError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = psutil.Process().memory_info().vms + more
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _fetch(connection: duckdb.DuckDBPyConnection, width: int) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    while some := connection.fetchmany(_FETCHED):
        rows += some
        require(
            len(rows) * width <= _MAX_CELLS,
            f"expected at most {_MAX_CELLS} cells, and the query returns more; group the rows, or "
            "add LIMIT",
        )
    return rows


def _is_unreadable(error: duckdb.Error) -> bool:
    """Whether the rows' files could not be read, rather than the query."""
    of_the_query = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)
    signs = ("Arrow", "Parquet", "reading the stream")
    return not isinstance(error, of_the_query) and any(sign in str(error) for sign in signs)


def _message(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message, with the remedy where one is known."""
    first = first_line(error)
    if isinstance(error, duckdb.InterruptException):
        return f"expected a query of at most {SECONDS:g} s, and this one takes longer; simplify it"
    if isinstance(error, duckdb.OutOfMemoryException):
        return _TOO_LARGE.format(_memory() / 2**30)
    if "column" in first and ("not found" in first or "does not" in first):
        return f"{first} Columns of rows: {', '.join(SCHEMA.names)}."
    return first + (" The view is called rows." if "Table with name" in first else "")


def _memory() -> int:
    """Return the bytes that a query may take."""
    return min(_MEMORY_BYTES, int(_MEMORY_SHARE * psutil.virtual_memory().total))


def _unreadable(stores: dict[str, Store], error: Exception) -> UnilensError:
    where = " or ".join(str(store.folder) for store in stores.values())
    first = first_line(error)
    return UnilensError(
        f"could not read the rows in {where}: {first}; unilens benchmark with the same plan sets a "
        "broken file aside and computes its rows again"
    )

"""SQL over the rows of a run, without access to anything else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow

from ...errors import UnilensError, first_line
from ..rows import SCHEMA
from ..store import Store

_CLOSED: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "python_enable_replacements": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}


@contextmanager
def opened(**stores: Store) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a connection with the rows of each store as a view of that name, and no files."""
    connection = duckdb.connect(":memory:", config=_CLOSED)
    try:
        for name, store in stores.items():
            connection.register(name, store.dataset())
        connection.execute("SET lock_configuration = true")
        yield connection
    except pyarrow.ArrowException as error:
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
        UnilensError: the query is invalid or not allowed.
    """
    with opened(rows=store) as connection:
        try:
            connection.execute(sql)
            columns = connection.description
            rows = connection.fetchall() if columns else []
        except duckdb.Error as error:
            if _is_unreadable(error):
                raise
            raise UnilensError(_message(error)) from error
    if not columns:
        raise UnilensError('expected a query, such as "SELECT count(*) FROM rows", got none')
    return [column[0] for column in columns], rows


def _is_unreadable(error: duckdb.Error) -> bool:
    """Whether the rows' files could not be read, rather than the query."""
    return any(sign in str(error) for sign in ("Arrow", "Parquet", "reading the stream"))


def _message(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message, with the columns where one is unknown."""
    first = first_line(error)
    if "column" in first and ("not found" in first or "does not" in first):
        return f"{first} Columns of rows: {', '.join(SCHEMA.names)}."
    return first + (" The view is called rows." if "Table with name" in first else "")


def _unreadable(stores: dict[str, Store], error: Exception) -> UnilensError:
    where = " or ".join(str(store.folder) for store in stores.values())
    first = first_line(error)
    return UnilensError(
        f"could not read the rows in {where}: {first}; unilens benchmark with the same plan sets a "
        "broken file aside and computes its rows again"
    )

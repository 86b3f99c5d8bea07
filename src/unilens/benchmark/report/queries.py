"""SQL over the rows of a run, which can read nothing else and change nothing."""

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
    """Give a connection that sees the rows of each store as a view of that name, and no files."""
    connection = duckdb.connect(":memory:", config=_CLOSED)
    try:
        for name, store in stores.items():
            connection.register(name, store.dataset())
        connection.execute("SET lock_configuration = true")
        yield connection
    except pyarrow.ArrowException as error:
        raise _unreadable(stores, error) from error
    except duckdb.Error as error:
        if _of_the_rows(error):
            raise _unreadable(stores, error) from error
        raise
    finally:
        connection.close()


def query(store: Store, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return the columns and rows that an SQL query of the view `rows` has as its answer.

    Args:
        store: the run.
        sql: in DuckDB's dialect. It has no access to files, and nothing it creates lasts.

    Raises:
        UnilensError: DuckDB does not understand the query, or refuses it.
    """
    with opened(rows=store) as connection:
        try:
            connection.execute(sql)
            described = connection.description
            found = connection.fetchall() if described else []
        except duckdb.Error as error:
            if _of_the_rows(error):
                raise
            raise UnilensError(_said(error)) from error
    if not described:
        raise UnilensError('expected a query, such as "SELECT count(*) FROM rows", got none')
    return [column[0] for column in described], found


def _of_the_rows(error: duckdb.Error) -> bool:
    """Whether it is the rows' files that could not be read, and not the query."""
    return any(sign in str(error) for sign in ("Arrow", "Parquet", "reading the stream"))


def _said(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's message; with the columns, where one is unknown."""
    first = first_line(error)
    if "column" in first and ("not found" in first or "does not" in first):
        return f"{first} Columns of rows: {', '.join(SCHEMA.names)}."
    return first + (" The view is called rows." if "Table with name" in first else "")


def _unreadable(stores: dict[str, Store], error: Exception) -> UnilensError:
    where = " or ".join(str(store.folder) for store in stores.values())
    first = first_line(error)
    return UnilensError(
        f"could not read the rows in {where}: {first}; unilens benchmark with the same plan sets a "
        "broken file aside and does its rows again"
    )

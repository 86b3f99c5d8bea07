"""The files of a run's rows: what is broken is left out and counted, and no row counts twice."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow
from pyarrow import dataset, parquet

from ..errors import first_line
from .rows import KEY, SCHEMA

UNREADABLE = (OSError, ValueError, pyarrow.ArrowException)
"""What `read_shard` raises."""
_MAX_ROWS, _MAX_BYTES = 1_000_000, 2**31
"""Of a file: a run writes some thousand rows at once."""
_CHECKED = dataset.ParquetFileFormat(
    default_fragment_scan_options=dataset.ParquetFragmentScanOptions(
        page_checksum_verification=True
    )
)


@dataclass(frozen=True)
class ReadableRows:
    """The rows of a run that can be read, each once.

    Attributes:
        data: the rows, which are read in parts.
        count: their number.
        broken: why files are left out, by their names.
        repeated: rows that another file has already, which are left out.
    """

    data: dataset.Dataset
    count: int
    broken: Mapping[str, str]
    repeated: int

    def tables(self) -> Iterator[pyarrow.Table]:
        """Yield the rows, file by file."""
        return (fragment.to_table(schema=SCHEMA) for fragment in self.data.get_fragments())


def read_shard(path: Path) -> pyarrow.Table:
    """Return the rows of a file; every page is checked against its checksum.

    Raises:
        OSError: it is missing, or a link, a folder, a pipe or a device.
        ValueError or pyarrow.ArrowException: it is broken, or has other columns or far more rows
            than a run writes.
    """
    if not stat.S_ISREG(path.lstat().st_mode):
        raise OSError("a link, a folder or a device in place of a file")
    with parquet.ParquetFile(path, page_checksum_verification=True) as file:
        if not file.schema_arrow.equals(SCHEMA):
            raise pyarrow.ArrowInvalid(f"other columns: {', '.join(file.schema_arrow.names)}")
        groups = (file.metadata.row_group(number) for number in range(file.num_row_groups))
        size = sum(group.total_byte_size for group in groups)
        if file.metadata.num_rows > _MAX_ROWS or size > _MAX_BYTES:
            raise pyarrow.ArrowInvalid(f"{file.metadata.num_rows} rows of {size} bytes")
        table, count = file.read(), file.metadata.num_rows
    table.validate(full=True)
    if len(table) != count:
        raise pyarrow.ArrowInvalid(f"{len(table)} rows of {count}")
    if any(table.column(name).null_count for name in KEY):
        raise pyarrow.ArrowInvalid(f"rows without one of {', '.join(KEY)}")
    return table


def readable(paths: Sequence[Path]) -> ReadableRows:
    """Return the rows of files, each once; broken files are left out."""
    whole, broken, count = [], {}, 0
    for path in paths:
        try:
            count += len(read_shard(path))
            whole.append(path)
        except UNREADABLE as error:
            broken[path.name] = first_line(error)
    data = _dataset(whole)
    if not _has_repeated(data):
        return ReadableRows(data, count, broken, 0)
    tables = list(distinct(map(read_shard, whole)))
    kept = sum(map(len, tables))
    return ReadableRows(dataset.dataset(tables), kept, broken, count - kept)


def distinct(tables: Iterator[pyarrow.Table]) -> Iterator[pyarrow.Table]:
    """Yield tables without the rows whose keys an earlier row has."""
    seen: set[Any] = set()
    for table in tables:
        new = []
        for key in zip(*(table.column(name).to_pylist() for name in KEY), strict=True):
            new.append(key not in seen)
            seen.add(key)
        yield table if all(new) else table.filter(pyarrow.array(new, pyarrow.bool_()))


def _dataset(paths: Sequence[Path]) -> dataset.Dataset:
    return dataset.dataset([str(path) for path in paths], schema=SCHEMA, format=_CHECKED)


def _has_repeated(data: dataset.Dataset) -> bool:
    with duckdb.connect(":memory:", config={"temp_directory": ""}) as connection:
        connection.register("data", data)
        sql = f"SELECT count(*) > count(DISTINCT hash({', '.join(KEY)})) FROM data"  # noqa: S608 - our names
        (repeated,) = connection.execute(sql).fetchall()[0]
    return bool(repeated)

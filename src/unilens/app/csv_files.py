"""CSV files: uploads, read within limits, and downloads."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UnilensError, require
from ..output.text import csv_cell, one_line, printable
from ..tables.files import read_table

MAX_BYTES = 5 * 2**20
MAX_ROWS = 10_000
MAX_COLUMNS = 500


@dataclass(frozen=True)
class CsvFile:
    """A visitor's table.

    Attributes:
        name: of the file, without folders.
        digest: the SHA-256 of its bytes.
        frame: the rows, of pandas.
    """

    name: str
    digest: str
    frame: Any

    @property
    def stem(self) -> str:
        """Name of the files about it, without suffix."""
        return re.sub(r"[^\w-]+", "-", Path(self.name).stem).strip("-")[:60] or "table"


def read_csv_file(path: Path) -> CsvFile:
    """Return the table in a file.

    Raises:
        UnilensError: it has too many bytes, rows or columns, or is no CSV file.
    """
    name = printable(path.name)[-200:]
    require(path.suffix.lower() == ".csv", f"expected a CSV file (NAME.csv), got {one_line(name)}")
    data = path.read_bytes()
    require(bool(data.strip()), f"expected a table, but {one_line(name)} is empty")
    require(
        len(data) <= MAX_BYTES,
        f"expected a CSV file of at most {MAX_BYTES // 2**20} MB, got {len(data) / 2**20:.0f} MB; "
        "leave out rows",
    )
    _check_columns(data.decode("utf-8", "replace"))
    frame = read_table(path)
    require(len(frame) > 0, f"expected rows below the names of columns, but {name} has none")
    require(
        len(frame) <= MAX_ROWS,
        f"expected a table of at most {MAX_ROWS} rows, got {len(frame)}; drop others",
    )
    return CsvFile(name, hashlib.sha256(data).hexdigest(), frame)


def _check_columns(text: str) -> None:
    """Raise if there are too many columns, before any of them is made."""
    for separator in ",;\t":
        try:
            names = next(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
        except csv.Error as error:
            raise UnilensError(f"expected a CSV file, got a line that is none: {error}") from None
        require(
            len(names) <= MAX_COLUMNS,
            f"expected a table of at most {MAX_COLUMNS} columns, got {len(names)}; drop others",
        )


def csv_bytes(names: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return rows as a CSV file whose texts no spreadsheet takes for formulas."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([csv_cell(name) for name in names])
    writer.writerows([csv_cell(cell) for cell in row] for row in rows)
    return buffer.getvalue().encode("utf-8", "replace")

"""Tables and models in files, for the command line."""

from __future__ import annotations

import csv
import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from .._ops.tensor_files import check_regular
from .._validation.arrays import as_number
from .._validation.imports import CODE, imported
from .._validation.weights import weights_only
from ..errors import UnilensError, UnknownNameError, first_line, require
from .frame import EXTRA, pandas_for

_PICKLES = (".joblib", ".pkl", ".pickle")
_SUFFIXES = (".csv", ".parquet")


def read_table(path: Path) -> Any:
    """Return the table in a CSV or Parquet file as a frame of pandas.

    A CSV file is UTF-8, with or without a mark at its beginning, with commas, semicolons or tabs,
    and the names of the columns in its first line.

    Raises:
        UnilensError: the file cannot be read, or is no such table; nothing is guessed.
    """
    pandas = pandas_for("a table in a file")
    require(
        path.suffix.lower() in _SUFFIXES,
        f"expected a table in {' or '.join(_SUFFIXES)}, got {path.name}",
    )
    try:
        check_regular(path)
        if path.suffix.lower() == ".parquet":
            return pandas.read_parquet(path)
        separator = _check_csv(path)
        return pandas.read_csv(path, sep=separator, encoding="utf-8-sig", low_memory=False)
    except UnicodeDecodeError as error:
        raise UnilensError(
            f"expected {path.name} in UTF-8, got another encoding at byte {error.start}; convert "
            "it, as by iconv -f latin1 -t utf-8"
        ) from error
    except ImportError as error:
        raise UnilensError(f"Parquet files need pyarrow: {first_line(error)}") from error
    except UnilensError:
        raise
    except Exception as error:  # parsers and file systems raise many kinds
        raise UnilensError(f"could not read {path.name}: {first_line(error)}") from error


def _check_csv(path: Path) -> str:
    """Return the separator of a CSV file; raise unless every line has a cell for each name."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        require(bool(first.strip()), f"expected {path.name} to begin with the names of columns")
        unquoted = re.sub(r'"[^"]*("|$)', "", first)
        separator = max(",;\t", key=unquoted.count)
        file.seek(0)
        lines = csv.reader(file, delimiter=separator)
        names = next(lines)
        require(
            not any(_is_number(name) for name in names),
            f"expected the names of columns in the first line of {path.name}, got numbers: "
            f"{first.strip()[:60]}; add a line with names",
        )
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        require(
            not repeated,
            f"expected a name of its own for each column of {path.name}, got "
            f"{', '.join(map(repr, repeated[:5]))} more than once",
        )
        _check_lines(lines, len(names), path.name)
    return separator


def _check_lines(lines: Any, count: int, name: str) -> None:
    """Raise unless all lines have as many cells; a blank one in a single column may be a row."""
    blank = None
    for cells in lines:
        require(
            len(cells) in (0, count) or not any(cells),
            f"expected {count} cells in line {lines.line_num} of {name}, as the first line has, "
            f"got {len(cells)}; mend that line",
        )
        is_blank = not cells or (count == 1 and cells[0].isspace())
        require(
            count > 1 or blank is None or is_blank,
            f"expected a cell in each line of {name}, got the blank line {blank}; write "
            '"" for a missing cell, or take the line out',
        )
        blank = lines.line_num if blank is None and is_blank else blank


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def without_column(frame: Any, name: str | None) -> Any:
    """Return a frame without a column; as it is for None."""
    if name is None:
        return frame
    if name not in frame.columns:
        raise UnknownNameError("column", name, map(str, frame.columns))
    return frame.drop(columns=name)


def load_model(name: str, trust_pickle: bool) -> Any:
    """Return a model by name, or from a file.

    Args:
        name: `py:package.module:name`, a model or a function that returns one; or a file: an
            exported program of torch (.pt2), or an estimator (.joblib, .pkl).
        trust_pickle: whether to load estimators, whose files run code of whoever wrote them.

    Raises:
        UnilensError: there is no such model, or its file is not trusted.
    """
    if name.startswith(CODE):
        return _imported(name.removeprefix(CODE))
    path = Path(name)
    suffix = path.suffix.lower()
    require(
        suffix in (".pt2", *_PICKLES),
        f"expected py:package.module:name or a file in .pt2, {', '.join(_PICKLES)}, got {name!r}",
    )
    require(path.is_file(), f"expected a model in {name}, but there is no such file")
    require(
        suffix == ".pt2" or trust_pickle,
        f"{path.name} can run any code when it is loaded; pass --trust-pickle if you trust its "
        "source",
    )
    try:
        if suffix == ".pt2":
            with weights_only():
                return torch.export.load(path).module()
        return _unpickled(path)
    except UnilensError:
        raise
    except Exception as error:  # a pickle can raise anything
        raise UnilensError(f"could not load {path}: {first_line(error)}") from error


def _unpickled(path: Path) -> Any:
    """Return the object in a pickle, which runs its code."""
    try:
        import joblib
    except ModuleNotFoundError:
        raise UnilensError(f"estimators in files need joblib; {EXTRA}") from None
    return joblib.load(path)  # of joblib and of pickle


def _imported(place: str) -> Any:
    try:
        found = imported(place)
    except UnilensError:
        raise
    except (ImportError, ValueError, AttributeError) as error:
        raise UnilensError(
            f"expected py:package.module:name of a model, but {place!r} cannot be imported: "
            f"{first_line(error)}"
        ) from error
    if not (inspect.isroutine(found) or isinstance(found, type)):
        return found
    try:
        return found()
    except Exception as error:  # a user's code can raise anything
        raise UnilensError(
            f"expected {place} to be a model, or a function without arguments that returns one; it "
            f"raised {type(error).__name__}: {first_line(error)}"
        ) from error


def read_rows(text: str | None, count: int, most: int, what: str = "--rows") -> list[int]:
    """Return the numbers of rows in a text like "0,5-9"; the first ones for None.

    Raises:
        UnilensError: it is no such text, or there are no such rows.
    """
    if text is None:
        return list(range(min(count, most)))
    rows: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [first, last if dash else first]
        require(
            all(end.isdecimal() for end in ends),
            f"expected {what} as numbers and ranges, such as 0,5-9, got {text!r}",
        )
        low, high = (int(str(as_number(end))) for end in ends)
        require(
            low <= high < count,
            f"expected {what} from 0 to {count - 1}, of a table with {count} rows, got {part!r}",
        )
        rows += range(low, high + 1)
    return list(dict.fromkeys(rows))

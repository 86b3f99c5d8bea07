"""The models of tables and series that the page is opened with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TableModel:
    """The model that the page is opened with.

    Attributes:
        model: `py:package.module:name`, or a file.
        references: a CSV or Parquet file with typical rows; None for rows of the upload.
        label_column: to leave out where it is there; None for none.
        trust_pickle: whether a file whose loading runs code is loaded.
    """

    model: str
    references: Path | None = None
    label_column: str | None = None
    trust_pickle: bool = False


@dataclass(frozen=True)
class SeriesModel:
    """The model that the page is opened with.

    Attributes:
        model: `py:package.module:name` of a module, or a .pt2 file.
        channels: whether it takes `(B, T, F)`, "last", or `(B, C, T)`, "first".
        forecast: whether outputs `(B, H)` are steps of a forecast; `(B, H, F)` always are.
    """

    model: str
    channels: str = "last"
    forecast: bool = False

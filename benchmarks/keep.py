"""Keep a run beside the sources: its rows in one file, without curves, parts and pictures.

    python benchmarks/keep.py RUN FOLDER [--without RUN]

What is kept prints every table and is gone on with where the run stopped, as a run is: copy it to a
folder and give that as --out. With --without, the images of another kept run are left out.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import pyarrow
import pyarrow.compute
import pyarrow.dataset
import pyarrow.parquet

from unilens.benchmark.rows import SCHEMA

LEFT_OUT = ("parts", "curves", "picture")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", type=Path)
    given = parser.parse_args()
    rows = rows_of(given.run)
    if given.without:
        others = rows_of(given.without).column("image").unique()
        rows = rows.filter(
            pyarrow.compute.invert(pyarrow.compute.is_in(rows["image"], value_set=others))
        )
    for name in LEFT_OUT:
        place = SCHEMA.get_field_index(name)
        nothing = pyarrow.nulls(len(rows), SCHEMA.field(name).type)
        rows = rows.set_column(place, SCHEMA.field(name), nothing)
    (given.folder / "rows").mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(
        rows.take(order_of(rows, given.run)),
        given.folder / "rows" / "rows.parquet",
        compression="zstd",
    )
    shutil.copy(given.run / "manifest.json", given.folder)
    images = len(rows.column("image").unique())
    print(f"{len(rows)} rows of {images} images in {given.folder}")


def rows_of(run: Path) -> pyarrow.Table:
    """Return the rows of a run in the schema of today."""
    return pyarrow.dataset.dataset(run / "rows", format="parquet", schema=SCHEMA).to_table()


def order_of(rows: pyarrow.Table, run: Path) -> list[int]:
    """Return the numbers of rows by image, and in the order of the run's plan."""
    plan = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["plan"]
    place = [
        {one: number for number, one in enumerate(plan[names])}
        for names in ("models", "methods", "metrics")
    ]
    columns = [rows.column(name).to_pylist() for name in ("model", "method", "metric")]
    images = rows.column("image").to_pylist()

    def key(row: int) -> tuple[int, str, int, int]:
        model, method, metric = (of[column[row]] for of, column in zip(place, columns, strict=True))
        return model, images[row], method, metric

    return sorted(range(len(rows)), key=key)


if __name__ == "__main__":
    main()

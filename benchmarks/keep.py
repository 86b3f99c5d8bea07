"""Keep a run in one file, without curves, parts and pictures; it is a run still.

    python benchmarks/keep.py RUN FOLDER [--data SOURCE]

What is kept prints every table, and is gone on with: `--data` says where its images lie here, so
that `python benchmarks/keep.py benchmarks/results/comparison run --data PHOTOS` makes a folder that
`unilens benchmark benchmarks/comparison.toml --data PHOTOS --out run` adds methods or metrics to.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet

from unilens.benchmark.plan import make_plan
from unilens.benchmark.rows import SCHEMA
from unilens.benchmark.store import Store
from unilens.errors import UnilensError, require

LEFT_OUT = ("parts", "curves", "picture")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", metavar="SOURCE")
    given = parser.parse_args()
    if not (given.run / "manifest.json").is_file():
        sys.exit(f"expected the folder of a run, with its manifest.json, got {given.run}")
    if given.folder.exists():
        sys.exit(f"expected a folder that is yet to be made, got {given.folder}")
    try:
        keep(given.run, given.folder, given.data)
    except UnilensError as error:
        sys.exit(str(error))


def keep(run: Path, folder: Path, data: str | None) -> None:
    """Write the rows of a run, and its manifest, to a folder."""
    store = Store(run)
    require(bool(store.shards), f"expected a run with rows, got none in {run}")
    rows = in_plan(store)
    said = store.manifest
    said["images"] = len(rows.column("image").unique())
    said["plan"]["data"]["limit"] = said["images"]
    if data:
        said["plan"]["data"]["source"] = data
        said["plan"] = make_plan(said["plan"], "--data").model_dump(mode="json")
    (folder / "rows").mkdir(parents=True)
    pyarrow.parquet.write_table(
        rows, folder / "rows" / "rows.parquet", compression="zstd", write_page_checksum=True
    )
    text = json.dumps(said, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")
    print(f"{len(rows)} rows of {said['images']} images in {folder}")


def in_plan(store: Store) -> pyarrow.Table:
    """Return the rows by model, image, method and metric, in the order of the plan."""
    names = ("models", "methods", "metrics")
    plan = store.manifest["plan"]
    models, methods, metrics = ({one: at for at, one in enumerate(plan[name])} for name in names)
    rows = store.table(columns=[one for one in SCHEMA.names if one not in LEFT_OUT])
    keys = rows.select(["model", "image", "corruption", "severity", "method", "metric"])
    order = sorted(
        (models[model], image, corruption, severity, methods[method], metrics[metric], row)
        for row, (model, image, corruption, severity, method, metric) in enumerate(
            zip(*(column.to_pylist() for column in keys.columns), strict=True)
        )
    )
    rows = rows.take(pyarrow.array([place[-1] for place in order], pyarrow.int64()))
    for name in LEFT_OUT:
        field = SCHEMA.field(name)
        rows = rows.append_column(field, pyarrow.nulls(len(rows), field.type))
    return rows.select(SCHEMA.names)


if __name__ == "__main__":
    main()

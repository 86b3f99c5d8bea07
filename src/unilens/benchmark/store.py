"""The folder of a run: the plan, the environment, and the rows, in files written whole."""

from __future__ import annotations

import itertools
import json
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow
from filelock import FileLock, Timeout
from pyarrow import compute, dataset, parquet

from ..errors import UnilensError, require
from ..output.records import write_json
from .environment import describe_environment
from .plan import Plan, check_resumable, make_plan
from .rows import FAILED, KEY, SCHEMA, SCHEMA_VERSION, Row, digest, in_order, table_of

_log = logging.getLogger(__name__)
MANIFEST, SHARDS, LOG, LOCK = "manifest.json", "rows", "log.txt", ".lock"
DIGEST_LIMIT = 1_000_000
"""Rows up to which the digest of a run is computed unasked: it takes long."""
_PARTIAL = ".partial"
_HALF_MANIFEST = f".{MANIFEST.removesuffix('.json')}-*.json"

UnitKey = tuple[str, str, int, str]
"""Image, corruption, severity and model."""


class RowIndex:
    """The keys of the rows that exist: 18 million take a hundred megabytes.

    Each unit has an integer in which each pair of method and metric is a bit.

    Attributes:
        failed: number of failed rows.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._bits: dict[tuple[str, str], int] = {}
        self._units: dict[UnitKey, int] = {}

    def add(self, key: UnitKey, method: str, metric: str) -> None:
        """Add a row."""
        bit = self._bits.setdefault((method, metric), 1 << len(self._bits))
        self._units[key] = self._units.get(key, 0) | bit

    def has(self, key: UnitKey, method: str, metric: str) -> bool:
        """Return whether a row exists."""
        return bool(self._units.get(key, 0) & self._bits.get((method, metric), 0))

    @property
    def images(self) -> set[str]:
        """The names of the images that have rows."""
        return {key[0] for key in self._units}

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._units.values())


class Store:
    """The folder of one run.

    Args:
        folder: of the run, which has a manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)

    @classmethod
    def create(cls, folder: Path, plan: Plan, images: int = 0) -> Store:
        """Begin a run in a folder, or continue the one that is there.

        Args:
            folder: of the run.
            plan: of the run.
            images: their number.

        Raises:
            UnilensError: the folder holds something else, or the run of a plan that this one does
                not extend; see `check_resumable`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        manifest: dict[str, Any] = {"schema": SCHEMA_VERSION, "sessions": []}
        if (folder / MANIFEST).exists():
            manifest = _read_manifest(folder)
            if any((folder / SHARDS).glob("*.parquet")):
                check_resumable(make_plan(manifest["plan"], str(folder / MANIFEST)), plan)
        else:
            _check_new(folder)
        manifest["plan"], manifest["images"] = plan.model_dump(mode="json"), images
        manifest["sessions"].append(describe_environment())
        write_json(folder / MANIFEST.removesuffix(".json"), manifest)
        (folder / SHARDS).mkdir(exist_ok=True)
        return cls(folder)

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return make_plan(self.manifest["plan"], str(self.folder / MANIFEST))

    @property
    def shards(self) -> list[Path]:
        """The files of the rows."""
        return sorted((self.folder / SHARDS).glob("*.parquet"))

    def dataset(self) -> dataset.Dataset:
        """Return the rows as an Arrow data set, which is read in parts."""
        return dataset.dataset([str(path) for path in self.shards], schema=SCHEMA)

    def table(self, columns: Sequence[str] | None = None, where: Any = None) -> pyarrow.Table:
        """Return the rows, sorted by image, model, method and metric.

        Args:
            columns: their names; None for all but the thumbnails.
            where: an expression of `pyarrow.dataset.field`.
        """
        selected = list(columns or (name for name in SCHEMA.names if name != "picture"))
        keyed = list(dict.fromkeys([*KEY, *selected]))
        return in_order(self.dataset().to_table(columns=keyed, filter=where)).select(selected)

    def digest(self) -> str:
        """Return the SHA-256 of all rows without their times; see `rows.digest`."""
        return digest(map(_read, self.shards))

    def index(self) -> RowIndex:
        """Return the keys of all rows; broken shards are set aside."""
        index = RowIndex()
        for path in self.shards:
            try:
                columns = _read(path).select([*KEY, "status"]).to_pydict()
            except (OSError, pyarrow.ArrowException) as error:
                self._set_aside(path, error)
                continue
            for *key, method, metric in zip(*(columns[name] for name in KEY), strict=True):
                index.add(cast(UnitKey, tuple(key)), method, metric)
            index.failed += columns["status"].count(FAILED)
        return index

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as a new shard, all or none of them."""
        if rows:
            self._write(self.folder / SHARDS / f"{uuid.uuid4().hex}.parquet", table_of(list(rows)))

    def forget_failed(self) -> int:
        """Remove failed rows, so that they are computed again; return their number."""
        removed = 0
        for path in self.shards:
            table = _read(path)
            kept = table.filter(compute.field("status") != FAILED)
            removed += len(table) - len(kept)
            if not len(kept):
                path.unlink()
            elif len(kept) < len(table):
                self._write(path, kept)
        return removed

    def clean(self) -> None:
        """Remove the partial files of an interrupted writer."""
        halves = self.folder.glob(_HALF_MANIFEST), (self.folder / SHARDS).glob(f"*{_PARTIAL}")
        for path in itertools.chain(*halves):
            path.unlink()

    def _write(self, path: Path, table: pyarrow.Table) -> None:
        partial = path.with_suffix(_PARTIAL)
        try:
            parquet.write_table(table, partial, compression="zstd", write_page_checksum=True)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        except OSError as error:
            raise UnilensError(
                f"could not write {len(table)} rows to {path.parent}: "
                f"{_reason(error)}; what was written before is kept: repair that, and "
                "run the same command again to continue"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_suffix(".broken")
        path.replace(aside)
        _log.warning("%s cannot be read (%s): set aside, its rows are computed again", aside, error)


def _read(path: Path) -> pyarrow.Table:
    """Return the rows of a file; every page is checked against its checksum."""
    schema = parquet.read_schema(path)
    if not schema.equals(SCHEMA):
        raise pyarrow.ArrowInvalid(f"other columns: {', '.join(schema.names)}")
    return parquet.read_table(path, page_checksum_verification=True)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which one writing process has; the folder is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            _check_new(folder)
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise UnilensError(
            f"another process is writing to {folder}; wait until it has ended, or choose another "
            "folder with --out"
        ) from None
    except OSError as error:
        raise UnilensError(
            f"expected a folder for the run that can be written, got {folder}: {_reason(error)}; "
            "choose another with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _reason(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def _check_new(folder: Path) -> None:
    ours = {LOCK, LOG, *(half.name for half in folder.glob(_HALF_MANIFEST))}
    others = [file.name for file in folder.iterdir() if file.name not in ours]
    require(
        not others,
        f"expected an empty folder or one of a run, got {folder}, which has no {MANIFEST} but "
        f"{', '.join(sorted(others)[:3])}; choose another with --out",
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnilensError(
            f"expected the folder of a run, with a {MANIFEST}, got {folder}: {_reason(error)}; "
            "unilens benchmark --out makes one"
        ) from error
    except ValueError as error:
        raise UnilensError(
            f"expected {path} to be JSON: {error}; begin the run in another folder with --out"
        ) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    require(
        schema == SCHEMA_VERSION,
        f"expected {path} of schema {SCHEMA_VERSION}, got {schema}; use the version of unilens "
        "that wrote it",
    )
    whole = isinstance(manifest.get("plan"), dict) and isinstance(manifest.get("sessions"), list)
    require(whole, f"expected {path} with plan and sessions; begin the run in another folder")
    return manifest

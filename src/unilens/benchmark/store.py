"""A run's folder: what was planned, where it was made, and the rows, in files written whole."""

from __future__ import annotations

import itertools
import json
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import pyarrow
from filelock import FileLock, Timeout
from pyarrow import compute, dataset, parquet

from ..errors import UnilensError, require
from ..output.records import write_json
from .plan import Plan, check_resumable, make_plan
from .rows import FAILED, KEY, SCHEMA, SCHEMA_VERSION, Row, digest, in_order, table_of
from .surroundings import surroundings

_log = logging.getLogger(__name__)
MANIFEST, SHARDS, LOG, LOCK = "manifest.json", "rows", "log.txt", ".lock"
MOST_DIGESTED = 1_000_000
"""Rows up to which the digest of a run is worked out unasked: it takes long."""
_PARTIAL = ".partial"
_HALF_MANIFEST = f".{MANIFEST.removesuffix('.json')}-*.json"

Place = tuple[str, str, int, str]
"""Image, corruption, severity and model."""


class Done:
    """Which rows there are: of 18 million, as a hundred megabytes.

    A place keeps one whole number, in which each pair of method and metric has a bit.

    Attributes:
        failed: how many of them failed.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._bits: dict[tuple[str, str], int] = {}
        self._places: dict[Place, int] = {}

    def add(self, place: Place, method: str, metric: str) -> None:
        """Note a row."""
        bit = self._bits.setdefault((method, metric), 1 << len(self._bits))
        self._places[place] = self._places.get(place, 0) | bit

    def has(self, place: Place, method: str, metric: str) -> bool:
        """Return whether a row is there."""
        return bool(self._places.get(place, 0) & self._bits.get((method, metric), 0))

    @property
    def images(self) -> set[str]:
        """The names of the images that have rows."""
        return {place[0] for place in self._places}

    def __len__(self) -> int:
        return sum(bits.bit_count() for bits in self._places.values())


class Store:
    """The folder of one run; `open` to read it, `writing` to add to it.

    Args:
        folder: that of the run, which has a manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)

    @classmethod
    def create(cls, folder: Path, plan: Plan, images: int = 0) -> Store:
        """Begin a run in a folder, or go on with the one that is there.

        Args:
            folder: that of the run.
            plan: what is asked for.
            images: how many there are to be.

        Raises:
            UnilensError: the folder holds something else, or the run of a plan that asks for
                something this one does not; see `check_resumable`.
        """
        folder.mkdir(parents=True, exist_ok=True)
        said: dict[str, Any] = {"schema": SCHEMA_VERSION, "sessions": []}
        if (folder / MANIFEST).exists():
            said = _read_manifest(folder)
            if any((folder / SHARDS).glob("*.parquet")):
                check_resumable(make_plan(said["plan"], str(folder / MANIFEST)), plan)
        else:
            _check_new(folder)
        said["plan"], said["images"] = plan.model_dump(mode="json"), images
        said["sessions"].append(surroundings())
        write_json(folder / MANIFEST.removesuffix(".json"), said)
        (folder / SHARDS).mkdir(exist_ok=True)
        return cls(folder)

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return make_plan(self.manifest["plan"], str(self.folder / MANIFEST))

    @property
    def shards(self) -> list[Path]:
        """The files that hold the rows."""
        return sorted((self.folder / SHARDS).glob("*.parquet"))

    def dataset(self) -> dataset.Dataset:
        """Return the rows as an Arrow data set, to be read in parts."""
        return dataset.dataset([str(path) for path in self.shards], schema=SCHEMA)

    def table(self, columns: Sequence[str] | None = None, where: Any = None) -> pyarrow.Table:
        """Return the rows, sorted by image, model, method and metric.

        Args:
            columns: their names; None for all but the pictures.
            where: an expression of `pyarrow.dataset.field`.
        """
        wanted = list(columns) if columns else [one for one in SCHEMA.names if one != "picture"]
        keyed = list(dict.fromkeys([*KEY, *wanted]))
        return in_order(self.dataset().to_table(columns=keyed, filter=where)).select(wanted)

    def digest(self) -> str:
        """Return the SHA-256 of all rows but for the time they took; see `rows.digest`."""
        return digest(map(_read, self.shards))

    def done(self) -> Done:
        """Return which rows are written; set aside the shards that are broken."""
        done = Done()
        for path in self.shards:
            try:
                columns = _read(path).select([*KEY, "status"]).to_pydict()
            except (OSError, pyarrow.ArrowException) as error:
                self._set_aside(path, error)
                continue
            for *place, method, metric in zip(*(columns[name] for name in KEY), strict=True):
                done.add(cast(Place, tuple(place)), method, metric)
            done.failed += columns["status"].count(FAILED)
        return done

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as one more shard, whole or not at all."""
        if rows:
            self._write(self.folder / SHARDS / f"{uuid.uuid4().hex}.parquet", table_of(list(rows)))

    def forget_failed(self) -> int:
        """Take out the rows that failed, so that they are done again; return how many."""
        gone = 0
        for path in self.shards:
            table = _read(path)
            kept = table.filter(compute.field("status") != FAILED)
            gone += len(table) - len(kept)
            if not len(kept):
                path.unlink()
            elif len(kept) < len(table):
                self._write(path, kept)
        return gone

    def clean(self) -> None:
        """Remove what an interrupted writer has left half done."""
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
                f"{_reason(error)}; what was written before is kept: mend that, and "
                "run the same command again to go on"
            ) from error
        finally:
            partial.unlink(missing_ok=True)

    def _set_aside(self, path: Path, error: Exception) -> None:
        aside = path.with_suffix(".broken")
        path.replace(aside)
        _log.warning("%s cannot be read (%s): set aside, its rows are done again", aside, error)


def _read(path: Path) -> pyarrow.Table:
    """Return the rows of a file, every page against its checksum."""
    found = parquet.read_schema(path)
    if not found.equals(SCHEMA):
        raise pyarrow.ArrowInvalid(f"other columns: {', '.join(found.names)}")
    return parquet.read_table(path, page_checksum_verification=True)


class Writing:
    """The right to add to a run, which one process has at a time.

    Args:
        folder: that of the run; it is made where it does not exist.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if not (self._folder / MANIFEST).exists():
                _check_new(self._folder)
            self._lock = FileLock(self._folder / LOCK)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise UnilensError(
                f"another process is writing to {self._folder}; wait until it has ended, or choose "
                "another folder with --out"
            ) from None
        except OSError as error:
            raise UnilensError(
                f"expected a folder for the run that can be written, got {self._folder}: "
                f"{_reason(error)}; choose another with --out"
            ) from error
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _reason(error: OSError) -> str:
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def _check_new(folder: Path) -> None:
    ours = {LOCK, LOG, *(half.name for half in folder.glob(_HALF_MANIFEST))}
    there = [one.name for one in folder.iterdir() if one.name not in ours]
    require(
        not there,
        f"expected an empty folder or one of a run, got {folder}, which has no {MANIFEST} but "
        f"{', '.join(sorted(there)[:3])}; choose another with --out",
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnilensError(
            f"expected the folder of a run, with a {MANIFEST}, got {folder}: {_reason(error)}; "
            "unilens benchmark --out makes one"
        ) from error
    except ValueError as error:
        raise UnilensError(
            f"expected {path} to be JSON: {error}; begin the run in another folder with --out"
        ) from error
    require(
        isinstance(said, dict) and said.get("schema") == SCHEMA_VERSION,
        f"expected {path} of schema {SCHEMA_VERSION}, got "
        f"{said.get('schema') if isinstance(said, dict) else 'none'}; use the unilens that made it",
    )
    whole = isinstance(said.get("plan"), dict) and isinstance(said.get("sessions"), list)
    require(whole, f"expected {path} with plan and sessions; begin the run in another folder")
    return said

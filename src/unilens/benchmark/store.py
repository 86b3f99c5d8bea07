"""The folder of a run: the plan, the environment, and the rows, in files written whole."""

from __future__ import annotations

import itertools
import logging
import os
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pyarrow
from filelock import FileLock, Timeout
from pyarrow import compute, dataset, parquet

from ..errors import UnilensError, UnilensWarning, first_line, require
from ..output.records import write_json
from .environment import describe_environment
from .manifest import MANIFEST, read_manifest, reason_of
from .plan import Plan, check_resumable, make_plan
from .row_index import RowIndex, UnitKey
from .rows import FAILED, KEY, SCHEMA, SCHEMA_VERSION, Row, digest, in_order, table_of
from .shards import UNREADABLE, ReadableRows, read_shard, readable

_log = logging.getLogger(__name__)
SHARDS, LOG, LOCK = "rows", "log.txt", ".lock"
BROKEN = "broken"
"""The folder within that of the rows to which broken files are moved."""
DIGEST_LIMIT = 1_000_000
"""Rows up to which the digest of a run is computed unasked: it takes long."""
_PARTIAL = ".partial"
_HALF_MANIFEST = f".{MANIFEST.removesuffix('.json')}-*.json"


class Store:
    """The folder of one run.

    Args:
        folder: of the run, which has a manifest.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._readable: ReadableRows | None = None
        self.manifest = read_manifest(folder)

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
        with _explained(f"could not begin a run in {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
        manifest: dict[str, Any] = {"schema": SCHEMA_VERSION, "sessions": []}
        if (folder / MANIFEST).exists():
            manifest = read_manifest(folder)
            if any((folder / SHARDS).glob("*.parquet")):
                check_resumable(make_plan(manifest["plan"], str(folder / MANIFEST)), plan)
        else:
            _check_new(folder)
        manifest["plan"], manifest["images"] = plan.model_dump(mode="json"), images
        manifest["sessions"].append(describe_environment())
        write_json(folder / MANIFEST.removesuffix(".json"), manifest)
        with _explained(f"could not begin a run in {folder}"):
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

    def readable(self) -> ReadableRows:
        """Return the rows that can be read; a warning says what is left out."""
        if self._readable is None:
            self._readable = readable(self.shards)
            if self.remark:
                warnings.warn(self.remark, UnilensWarning, stacklevel=2)
        return self._readable

    @property
    def remark(self) -> str:
        """What is missing because files are broken, or counted once; empty for a whole run."""
        rows = self.readable()
        parts = []
        if rows.broken:
            name, reason = next(iter(rows.broken.items()))
            missing = max(self.planned - rows.count, 0)
            parts = [
                f"files of rows that cannot be read are left out: {len(rows.broken)}, the first "
                f"{name} ({reason}); {missing} of {self.planned} rows are missing"
            ]
        if rows.repeated:
            parts.append(f"{rows.repeated} rows are there more than once and count once")
        remedy = "; unilens benchmark with the same plan and folder mends it" if parts else ""
        return f"{self.folder}: {'; '.join(parts)}{remedy}" if parts else ""

    @property
    def planned(self) -> int:
        """The number of rows that the plan asks for."""
        plan = self.plan
        maps = len(plan.data.conditions) * len(plan.models) * len(plan.methods)
        return int(self.manifest.get("images", 0)) * maps * len(plan.metrics)

    def dataset(self) -> dataset.Dataset:
        """Return the rows that can be read as an Arrow data set, which is read in parts."""
        return self.readable().data

    def table(self, columns: Sequence[str] | None = None, where: Any = None) -> pyarrow.Table:
        """Return the rows that can be read, sorted by image, model, method and metric.

        Args:
            columns: their names; None for all but the thumbnails.
            where: an expression of `pyarrow.dataset.field`.
        """
        selected = list(columns or (name for name in SCHEMA.names if name != "picture"))
        keyed = list(dict.fromkeys([*KEY, *selected]))
        return in_order(self.dataset().to_table(columns=keyed, filter=where)).select(selected)

    def digest(self) -> str:
        """Return the SHA-256 of all rows without their times; see `rows.digest`."""
        return digest(self.readable().tables())

    def index(self) -> RowIndex:
        """Return the keys of all rows; broken files and repeated rows are set aside."""
        index = RowIndex()
        for path in self.shards:
            try:
                table = read_shard(path)
            except UNREADABLE as error:
                self._set_aside(path, f"cannot be read ({first_line(error)})")
                continue
            self._add(index, path, table)
        return index

    def _add(self, index: RowIndex, path: Path, table: pyarrow.Table) -> None:
        columns = table.select([*KEY, "status", "content"]).to_pydict()
        new = []
        for *unit, method, metric in zip(*(columns[name] for name in KEY), strict=True):
            new.append(index.add(cast(UnitKey, tuple(unit)), method, metric))
        if not any(new):
            self._set_aside(path, "has rows that are in other files")
            return
        for content, *unit in zip(columns["content"], *(columns[n] for n in KEY[:4]), strict=True):
            if content is not None:
                index.contents.setdefault(cast(UnitKey, tuple(unit)), content)
        index.failed += sum(
            status == FAILED and first for status, first in zip(columns["status"], new, strict=True)
        )
        if not all(new):
            _log.warning("%s: %d rows are in other files: removed", path, new.count(False))
            self._write(path, table.filter(pyarrow.array(new)))

    def append(self, rows: Sequence[Row]) -> None:
        """Write rows as a new shard, all or none of them."""
        if rows:
            self._write(self.folder / SHARDS / f"{uuid.uuid4().hex}.parquet", table_of(list(rows)))

    def forget_failed(self) -> int:
        """Remove failed rows, so that they are computed again; return their number."""
        removed = 0
        for path in self.shards:
            try:
                table = read_shard(path)
            except UNREADABLE:
                continue  # `index` sets it aside
            kept = table.filter(compute.field("status") != FAILED)
            removed += len(table) - len(kept)
            if len(kept) < len(table):
                self._replace(path, kept)
        return removed

    def _replace(self, path: Path, kept: pyarrow.Table) -> None:
        if len(kept):
            self._write(path, kept)
            return
        with _explained(f"could not remove {path}"):
            path.unlink()
        self._readable = None

    def clean(self) -> None:
        """Remove the partial files of an interrupted writer."""
        halves = self.folder.glob(_HALF_MANIFEST), (self.folder / SHARDS).glob(f"*{_PARTIAL}")
        with _explained(f"could not tidy {self.folder}"):
            for path in itertools.chain(*halves):
                if path.is_symlink() or not path.is_dir():
                    path.unlink(missing_ok=True)

    def _write(self, path: Path, table: pyarrow.Table) -> None:
        partial = path.with_suffix(_PARTIAL)
        self._readable = None
        try:
            parquet.write_table(table, partial, compression="zstd", write_page_checksum=True)
            with partial.open("rb") as written:
                os.fsync(written.fileno())
            partial.replace(path)
        except OSError as error:
            raise UnilensError(
                f"could not write {len(table)} rows to {path.parent}: "
                f"{reason_of(error)}; what was written before is kept: repair that, and "
                "run the same command again to continue"
            ) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def _set_aside(self, path: Path, reason: str) -> None:
        folder = path.parent / BROKEN
        self._readable = None
        with _explained(f"could not set {path} aside"):
            folder.mkdir(exist_ok=True)
            if folder.is_symlink():
                raise OSError(f"{folder} is a link")
            aside = folder / f"{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"
            path.rename(aside)
        _log.warning("%s %s: moved to %s; what is missing is computed again", path, reason, aside)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Raise an error of the file system as one line."""
    try:
        yield
    except OSError as error:
        raise UnilensError(
            f"{what}: {reason_of(error)}; repair that, and run the same command again"
        ) from error


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which one writing process has; the folder is created."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / MANIFEST).exists():
            _check_new(folder)
        if (folder / LOCK).is_symlink():
            raise OSError(f"{LOCK} is a link")
        lock = FileLock(folder / LOCK)
        lock.acquire(blocking=False)
    except Timeout:
        raise UnilensError(
            f"another process is writing to {folder}; wait until it has ended, or choose another "
            "folder with --out"
        ) from None
    except OSError as error:
        raise UnilensError(
            f"expected a folder for the run that can be written, got {folder}: {reason_of(error)}; "
            "choose another with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_new(folder: Path) -> None:
    ours = {LOCK, LOG, *(half.name for half in folder.glob(_HALF_MANIFEST))}
    others = [file.name for file in folder.iterdir() if file.name not in ours]
    require(
        not others,
        f"expected an empty folder or one of a run, got {folder}, which has no {MANIFEST} but "
        f"{', '.join(sorted(others)[:3])}; choose another with --out",
    )

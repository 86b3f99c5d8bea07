"""The manifest of a run: JSON that is checked before anything relies on it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import UnilensError, require
from ..output.text import one_line
from .rows import SCHEMA_VERSION

MANIFEST = "manifest.json"
_MAX_BYTES, _MAX_DEPTH = 2**26, 60


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    schema_: Literal[1] = Field(alias="schema")
    images: int = Field(default=0, ge=0, lt=2**63)
    plan: dict[str, Any]
    sessions: list[dict[str, Any]]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest in the folder of a run.

    Raises:
        UnilensError: there is none, or it is no manifest of this version.
    """
    path = folder / MANIFEST
    try:
        content = _read(path)
    except OSError as error:
        raise UnilensError(
            f"expected the folder of a run, with a {MANIFEST}, got {folder}: "
            f"{reason_of(error)}; unilens benchmark --out makes one"
        ) from error
    remedy = "begin the run in another folder with --out"
    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UnilensError(f"expected {path} to be JSON: {one_line(error)}; {remedy}") from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    require(
        type(schema) is int and schema == SCHEMA_VERSION,
        f"expected {path} of schema {SCHEMA_VERSION}, got {schema!r:.40}; use the version of "
        "unilens that wrote it",
    )
    require(
        not deeper_than(manifest, _MAX_DEPTH),
        f"expected {path} with at most {_MAX_DEPTH} levels, got more; {remedy}",
    )
    try:
        _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UnilensError(
            f"expected {path} with plan and sessions: {key}: {first['msg']}; {remedy}"
        ) from error
    return dict(manifest)


def deeper_than(value: object, depth: int) -> bool:
    """Whether mappings and lists are nested more deeply."""
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for item in level
            if isinstance(item, (dict, list, tuple))
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return any(isinstance(item, (dict, list, tuple)) for item in level)


def reason_of(error: OSError) -> str:
    """Return what the operating system says."""
    return error.strerror or (os.strerror(error.errno) if error.errno else str(error))


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path.name} is no file")
    if status.st_size > _MAX_BYTES:
        raise OSError(f"{path.name} has {status.st_size} bytes")
    return path.read_bytes()

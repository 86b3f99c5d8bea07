"""Files of attributions: safetensors, with all other fields as JSON in the header."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from .._validation.arrays import as_number
from ..errors import UnilensError, first_line, require
from .fields import fields_of, input_dimension, tensors_of
from .tensor_files import read_tensors

A = TypeVar("A")
_FORMAT, _VERSION = "unilens attribution", 1


def save(
    attribution: Any, path: object, overwrite: bool, more: Mapping[str, str] | None = None
) -> None:
    """Write an attribution to a file atomically; see `Attribution.save`.

    Args:
        attribution: to save.
        path: of the file.
        overwrite: whether to replace a file that exists.
        more: further entries of the header.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    file = _path(path)
    check_free(file, overwrite)
    tensors = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in tensors_of(attribution).items()
    }
    fields = json.dumps(_other_fields(attribution))
    header = {"format": f"{_FORMAT} {_VERSION}", "fields": fields, **(more or {})}

    def write(name: str) -> None:
        try:
            save_file(tensors, name, header)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_whole(file, "", write)


def check_free(file: Path, overwrite: bool) -> None:
    """Raise where a file cannot be written, or exists and may not be replaced."""
    try:
        folder, taken = file.parent.is_dir(), file.exists() and (file.is_dir() or not overwrite)
    except (OSError, ValueError) as error:
        raise UnilensError(
            f"could not write {file}: {getattr(error, 'strerror', error)}"
        ) from error
    require(folder, f"could not write {file}: there is no folder {file.parent}; make it first")
    require(
        not taken,
        f"could not write {file}: it exists already; choose another name, or pass overwrite=True",
    )


def load(kind: type[A], path: object, check: Callable[[A], object]) -> tuple[A, Mapping[str, str]]:
    """Return the attribution in a file, and the file's header.

    Args:
        kind: the class `Attribution`.
        path: of the file.
        check: called with the attribution; what it raises says that the file is not whole.
    """
    file = _path(path)
    header, tensors = _read(file)
    try:
        attribution = kind(**fields_of(kind, tensors), **json.loads(header["fields"]))
        _check_input_count(kind, tensors)
        check(attribution)
    except Exception as error:  # anybody may have made the file, and anything may be in it
        raise not_whole(file) from error
    return attribution, header


def not_whole(path: object) -> UnilensError:
    """Return the error of a file that contradicts its header."""
    return UnilensError(
        f"expected {path} to be a whole attribution, but it does not fit its own description; "
        "explain again, or use the version of unilens that wrote it"
    )


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise UnilensError(f"expected the path of a file, got {type(path).__name__}")
    return Path(path)


def _read(file: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    try:
        header, tensors = read_tensors(file)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UnilensError(
            f"expected {file} to be a file that Attribution.save wrote, got: {reason}"
        ) from error
    name, _, version = header.get("format", "").rpartition(" ")
    require(
        name == _FORMAT and bool(re.fullmatch(r"[0-9]{1,9}", version)),
        f"expected {file} to be a file that Attribution.save wrote, got safetensors of another "
        "kind",
    )
    require(
        int(version) <= _VERSION,
        f"expected an attribution of format {_VERSION} at most, got {version} in {file}; update "
        "unilens",
    )
    return header, tensors


def _check_input_count(kind: type, tensors: Mapping[str, Tensor]) -> None:
    """Raise unless all tensors have the same number of inputs."""
    count = len(tensors["values"])
    for name, value in tensors.items():
        if value.shape[input_dimension(kind, name)] != count:
            raise ValueError(name)


def _other_fields(attribution: Any) -> dict[str, object]:
    """Return the fields without tensors, as plain data."""
    stored = {name.partition(".")[0] for name in tensors_of(attribution)}
    names = [field.name for field in dataclasses.fields(attribution)]
    values = {name: getattr(attribution, name) for name in names if name not in stored}
    return {name: _data(name, value) for name, value in values.items() if value is not None}


def _data(where: str, value: object) -> object:
    """Return a value as JSON would load it; raise where JSON cannot represent it."""
    value = as_number(value)
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _data(f"{where}.{key}", item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(where, item) for item in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    raise UnilensError(
        f"expected plain data in {where}, for JSON, got {type(value).__name__}; put "
        "numbers, texts, lists or mappings there"
    )


def write_whole(path: Path, suffix: str, write_to: Callable[[str], object]) -> None:
    """Write to a temporary file in the same folder and rename it: readers never see a partial file.

    Args:
        path: of the file, without the suffix.
        suffix: of the file's name.
        write_to: a function that writes the contents to the path that it gets.

    Raises:
        UnilensError: the file cannot be written.
    """
    temporary = path.parent / f".{path.name}-{secrets.token_hex(6)}{suffix}"
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        write_to(str(temporary))
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(mode)
        temporary.replace(path.parent / (path.name + suffix))
    except OSError as error:
        raise UnilensError(f"could not write {path}{suffix}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)

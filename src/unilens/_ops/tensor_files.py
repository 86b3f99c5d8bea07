"""Files of tensors, which anybody may have made: data alone, read whole or refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def check_regular(path: Path) -> None:
    """Raise `OSError` where a path is a folder, or a pipe or device, which has no end."""
    if path.exists() and not path.is_file():
        raise OSError("it is no file, but a folder, a pipe or a device")


def read_tensors(path: Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    """Return the header of a safetensors file, and its tensors.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it is no regular file, such as a pipe, which has no end, or cannot be read.
        ValueError: it is no such file, or a broken one.
    """
    from safetensors import SafetensorError, safe_open

    if not os.path.exists(path):  # noqa: PTH110 - a name that no file can have is no error
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    check_regular(path)
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
            return header, {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, TypeError, AttributeError, MemoryError) as error:
        raise ValueError(f"it is no safetensors file, or a broken one ({error})") from error

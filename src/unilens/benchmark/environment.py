"""The environment of a run: versions, hardware, and the commit of the code."""

from __future__ import annotations

import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch

from ..provenance import versions
from .checkout import commit_of, root_of

_PACKAGES = ["torchvision", "timm", "transformers", "captum", "numpy", "scipy", "pyarrow", "ray"]


def describe_environment() -> dict[str, Any]:
    """Return the time, command, versions, hardware and commits, as plain data."""
    return {
        "began": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions()
        | {name: metadata.version(name) for name in _PACKAGES if find_spec(name) is not None},
        "hardware": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "memory_bytes": psutil.virtual_memory().total,
            "accelerators": [
                torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())
            ],
        },
        "git": {"here": _state(commit_of(Path.cwd())), "unilens": _state(_own_commit())},
    }


def _state(commit: str | None) -> dict[str, str] | None:
    return None if commit is None else {"commit": commit}


def _own_commit() -> str | None:
    """Return the commit of unilens's own checkout; None where it is installed from elsewhere."""
    package = Path(__file__).resolve().parents[1]
    root = root_of(package)
    return commit_of(package) if root is not None and root / "src" == package.parent else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

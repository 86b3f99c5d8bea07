"""The environment of a run: versions, hardware, and the state of the code."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch

from ..provenance import versions

_PACKAGES = ["torchvision", "timm", "transformers", "captum", "numpy", "scipy", "pyarrow", "ray"]


def describe_environment() -> dict[str, Any]:
    """Return the time, command, versions, hardware and git state, as plain data."""
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
        "git": {"here": _git_state(Path.cwd()), "unilens": _own_git_state()},
    }


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of a folder's checkout, and whether files have changed since."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "changed": bool(_git(folder, "status", "--porcelain", "-uno"))}


def _own_git_state() -> dict[str, Any] | None:
    """Return the state of unilens's own checkout, or None outside one."""
    here = Path(__file__)
    tracked = _git(here.parent, "ls-files", "--error-unmatch", here.name) is not None
    return _git_state(here.parent) if tracked else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours
            ["git", "-C", str(folder), *arguments],  # noqa: S607 - wherever git is
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()

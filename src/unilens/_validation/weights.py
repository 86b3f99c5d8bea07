"""Weights are data: no pickle is run where a library reads them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NO_CODE = {"trust_remote_code": False}
"""Argument of all loaders of transformers: without it they ask on a terminal."""
_ONLY, _NOT_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"


@contextmanager
def weights_only() -> Iterator[None]:
    """Have every `torch.load` inside read tensors alone, whatever a library asks it for.

    torchvision, and torch.hub by default, unpickle what they find in the cache. torch reads the
    variable at each call; below 2.6 it could be deceived (CVE-2025-32434).
    """
    before = {name: os.environ.pop(name, None) for name in (_ONLY, _NOT_ONLY)}
    os.environ[_ONLY] = "1"
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value

"""Corruptions of ImageNet-C at five severities."""

from __future__ import annotations

import importlib
import importlib.metadata
import threading
from typing import Any

import numpy
import torch
from torch import Tensor

from ..._ops.random import generators, seed_for
from ...errors import UnilensError, UnknownNameError, require
from ...metrics.robustness.corruptions import PACKAGED, check_corruptible, corruptions

PACKAGE = "imagecorruptions-imaug"
"""The package of the corruptions in `PACKAGED`."""
_SEEDED = ("glass_blur",)
"""Corruptions of the package that take a seed and ignore that of NumPy."""
_MIN_SIDE = 32
"""Smallest height and width that the package accepts."""
_numpy_lock = threading.Lock()


def corrupt(pixels: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Return a corrupted image.

    Random numbers depend on the seed and the image's content only.

    Args:
        pixels: `(3, H, W)` in [0, 1]; the severities are made for 224 pixels a side.
        name: one of `unilens.metrics.corruptions`, or of `PACKAGED` (extra `corruptions`).
        severity: 1 to 5.
        seed: of the run.

    Returns:
        `(3, H, W)` in [0, 1], on the image's device and in its dtype.

    Raises:
        UnknownNameError: there is no such corruption.
        UnilensError: there is no such severity, or the package is missing.

    References:
        Hendrycks & Dietterich 2019, arXiv 1903.12261.
    """
    check_corruption(name)
    require(
        severity in (1, 2, 3, 4, 5) and not isinstance(severity, bool),
        f"expected severity to be 1, 2, 3, 4 or 5, got {severity!r}",
    )
    batch = pixels.unsqueeze(0)
    check_corruptible(batch)
    own = generators(batch, torch.Generator().manual_seed(seed_for("corruption", seed)))
    if name in PACKAGED:
        return _packaged(pixels, name, severity, own[0].initial_seed())
    corruption = corruptions[name]()
    return corruption(batch, corruption.severities[severity - 1], own)[0]


def check_corruption(name: str) -> None:
    """Raise `UnknownNameError` unless there is a corruption of that name."""
    known = [*corruptions, *PACKAGED]
    if name not in known:
        raise UnknownNameError("corruption", name, known)


def _packaged(pixels: Tensor, name: str, severity: int, seed: int) -> Tensor:
    """Corrupt by the package, in 8 bits; NumPy's global generator, which it uses, is restored."""
    package = _package(name)
    side = min(pixels.shape[1:])
    require(
        side >= _MIN_SIDE,
        f"expected an image of at least {_MIN_SIDE} pixels a side for {name}, got {side}",
    )
    image = (pixels.detach().cpu().double() * 255).round().byte().permute(1, 2, 0).numpy()
    seed %= 2**32
    own = {"seed": seed} if name in _SEEDED else {}
    with _numpy_lock:
        before = numpy.random.get_state()
        numpy.random.seed(seed)
        try:
            corrupted = package.corrupt(numpy.ascontiguousarray(image), severity, name, **own)
        finally:
            numpy.random.set_state(before)
    return (torch.from_numpy(corrupted).permute(2, 0, 1).double() / 255).to(pixels)


def _package(name: str) -> Any:
    try:
        importlib.metadata.version(PACKAGE)  # another package has a module of the same name
        return importlib.import_module("imagecorruptions")
    except ImportError:
        raise UnilensError(
            f"the corruption {name} needs {PACKAGE}; run: pip install 'unilens[corruptions]'"
        ) from None

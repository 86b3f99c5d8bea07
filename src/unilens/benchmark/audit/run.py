"""An audit: every photograph measured, and kept in a file as soon as it is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...errors import UnilensError, require
from ...provenance import versions
from ..data import class_index_of
from .measure import CONTROLS, EXPLAINING, Auditor, Facts, keep, read_kept
from .photographs import Photographs, ProgressCallback

TRUST_PHOTOGRAPHS = 16
"""On which all maps are tested by covering what they mark."""
KEPT = "measured"
"""Folder of the files of the photographs."""


@dataclass(frozen=True)
class Audit:
    """All that was measured.

    Attributes:
        photographs: that were audited.
        indices: of those that the model could explain.
        facts: of each of them; see `Auditor.measure`.
        consensus: of each of them `(H, W)`, the share of methods that count a pixel among their
            strongest tenth.
        left_out: why methods do not apply, by name.
        random_weights: whether the model is untrained.
    """

    photographs: Photographs
    indices: Sequence[int]
    facts: Sequence[Facts]
    consensus: Sequence[Tensor]
    left_out: Mapping[str, str]
    random_weights: bool


def audit(
    photographs: Photographs,
    folder: Path,
    *,
    seed: int = 0,
    random_weights: bool = False,
    on_progress: ProgressCallback = lambda done, planned, current: None,
) -> Audit:
    """Measure photographs; those that the folder holds already are not measured again.

    Args:
        photographs: to measure.
        folder: in which `measured/` keeps a file for each.
        seed: of everything random.
        random_weights: whether the model is untrained.
        on_progress: see `ProgressCallback`.

    Raises:
        UnilensError: the model cannot explain any, or the folder cannot be written.
    """
    auditor = Auditor.of(photographs.classifier, photographs.view(0), seed)
    kept = folder / KEPT
    kept.mkdir(parents=True, exist_ok=True)
    indices, facts, maps = [], [], []
    for index, item in enumerate(photographs.items):
        on_progress(index, len(photographs.items), item.key)
        try:
            measured, consensus = _measured(photographs, auditor, index, kept)
        except _FailedError as error:
            photographs.broken[item.key] = str(error)
            continue
        label = class_index_of(item.label, photographs.classifier)
        indices.append(index)
        facts.append(measured | {"label": label})
        maps.append(consensus)
    reason = next(iter(photographs.broken.values()), "")
    require(bool(facts), f"expected photographs that the model can explain, got none: {reason}")
    return Audit(photographs, indices, facts, maps, auditor.left_out, random_weights)


class _FailedError(Exception):
    """A photograph that the model could not explain."""


def _measured(
    photographs: Photographs, auditor: Auditor, index: int, folder: Path
) -> tuple[Facts, Tensor]:
    """Return what is measured on a photograph, from its file where there is one."""
    try:
        view = photographs.view(index)
    except UnilensError as error:
        raise _FailedError(str(error)) from error
    regions = photographs.regions(index, view)
    tested = index < TRUST_PHOTOGRAPHS
    digest = hashlib.sha256(view.numpy().tobytes())
    for region in regions:
        digest.update(region.name.encode() + region.mask.numpy().tobytes())
    made = [EXPLAINING, CONTROLS, auditor.fingerprint, auditor.seed, tested, versions()]
    digest.update(json.dumps(made).encode())
    path = folder / f"{digest.hexdigest()[:24]}.safetensors"
    known = read_kept(path)
    if known is not None:
        return known
    try:
        facts, consensus = auditor.measure(view, regions, test_trust=tested)
    except UnilensError as error:
        raise _FailedError(str(error)) from error
    keep(path, facts, consensus)
    known = read_kept(path)
    assert known is not None
    return known

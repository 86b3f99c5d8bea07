"""Manifolds in files: safetensors, with their kind and settings in the header."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .._ops.tensor_files import read_tensors
from ..errors import UnilensError, first_line, require
from .autoencoder import ConvAutoencoder
from .decoder import Decoder
from .local import LocalPCA
from .pca import PCA
from .tangent import Manifold

FORMAT = "unilens manifold 1"


def save_manifold(
    manifold: Manifold,
    path: str | Path,
    about: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a manifold to a file.

    Args:
        manifold: a `Decoder` of a `ConvAutoencoder`, a `PCA` or a `LocalPCA`.
        path: of the file.
        about: plain data to save with it, such as the data it was fitted to.
        overwrite: whether to replace a file that exists.

    Raises:
        UnilensError: it is a manifold of another kind, or the file exists or cannot be written.
    """
    stored = manifold.coder if isinstance(manifold, Decoder) else manifold
    kind = next((name for name, stored_type in _KINDS.items() if type(stored) is stored_type), None)
    require(
        kind is not None,
        f"expected a manifold of the kind {', '.join(_KINDS)}, got {type(manifold).__name__}; "
        "save its network yourself",
    )
    assert kind is not None
    settings, tensors = _taken_apart(stored)
    header = {"format": FORMAT, "kind": kind, "settings": json.dumps(settings)}
    written = save(
        {name: value.detach().cpu().contiguous() for name, value in tensors.items()},
        header | {"about": json.dumps(dict(about or {}))},
    )
    try:
        with Path(path).open("wb" if overwrite else "xb") as file:
            file.write(written)
    except OSError as error:
        remedy = "; choose another name" if isinstance(error, FileExistsError) else ""
        raise UnilensError(f"could not write {path}: {error.strerror or error}{remedy}") from error


def load_manifold(path: str | Path) -> Manifold:
    """Return the manifold in a file.

    Raises:
        UnilensError: there is no such file, or it holds something else.
    """
    header, tensors = _read(path)
    try:
        require(len({value.dtype for value in tensors.values()}) == 1, "several dtypes")
        for name, value in tensors.items():
            require(value.is_floating_point() and bool(value.isfinite().all()), name)
        return _put_together(header["kind"], json.loads(header["settings"]), tensors)
    except Exception as error:  # anybody may have made the file, and anything may be in it
        raise UnilensError(
            f"expected {path} to be a whole manifold, but it does not fit its own description; "
            "fit it again (unilens manifold fit)"
        ) from error


def _read(path: str | Path) -> tuple[Mapping[str, str], dict[str, Tensor]]:
    try:
        header, tensors = read_tensors(Path(path))
    except FileNotFoundError as error:
        raise UnilensError(
            f"expected a manifold: transformations, py:module:function or a file of unilens "
            f"manifold fit, but there is no file {path}"
        ) from error
    except (OSError, ValueError) as error:
        raise UnilensError(f"could not read the manifold {path}: {first_line(error)}") from error
    require(
        header.get("format") == FORMAT,
        f"expected {path} to be a manifold of unilens manifold fit, got another safetensors file",
    )
    return header, tensors


_KINDS: dict[str, Callable[..., Any]] = {
    "autoencoder": ConvAutoencoder,
    "pca": PCA,
    "local_pca": LocalPCA,
}
KINDS = tuple(_KINDS)


def _taken_apart(stored: object) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the settings of what is stored, and its tensors."""
    if isinstance(stored, ConvAutoencoder):
        names = ("shape", "dimension", "width")
        return {name: getattr(stored, name) for name in names}, stored.state_dict()
    fields = vars(stored)
    tensors = {name: value for name, value in fields.items() if isinstance(value, Tensor)}
    return {name: value for name, value in fields.items() if name not in tensors}, tensors


def _put_together(kind: str, settings: dict[str, Any], tensors: dict[str, Tensor]) -> Manifold:
    """Return the manifold of a kind; see `_taken_apart`."""
    if kind != "autoencoder":
        manifold: Manifold = _KINDS[kind](**settings, **tensors)
        return manifold
    with torch.device("meta"):  # whatever sizes the file claims, it has to bring
        network = ConvAutoencoder(**settings)
    network.load_state_dict(tensors, assign=True)
    return Decoder(network.eval().requires_grad_(False))

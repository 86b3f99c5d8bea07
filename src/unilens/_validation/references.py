"""Checks of references: other inputs that a method compares with."""

from __future__ import annotations

from typing import Annotated, cast

from torch import Tensor

from ..errors import UnilensError, require
from .arrays import to_tensor
from .settings import Check


def check_references(references: object) -> None:
    """Raise unless references are a tensor of at least one input."""
    references = to_tensor("references", references)
    actual = (
        tuple(references.shape) if isinstance(references, Tensor) else type(references).__name__
    )
    require(
        isinstance(references, Tensor) and references.ndim > 0 and references.numel() > 0,
        f"expected references to be a tensor (R, *S), R at least 1, got {actual}",
    )
    require(
        bool(cast(Tensor, references).isfinite().all()),
        f"expected finite references, got NaN or infinity in references of shape {actual}; clean "
        "them first",
    )


References = Annotated[Tensor, Check(lambda _, value: check_references(value))]
"""A setting: other inputs `(R, *S)`."""


def references_for(owner: str, references: Tensor | None, inputs: Tensor) -> Tensor:
    """Return the references `(R, *S)` on the inputs' device and in their dtype.

    Raises:
        UnilensError: they are missing, or of another shape than the inputs.
    """
    shape = ", ".join(map(str, inputs.shape[1:]))
    if references is None:
        raise UnilensError(
            f"{owner} needs references=(R, {shape}): inputs to compare with, such as a sample of "
            "the training data"
        )
    if references.shape[1:] != inputs.shape[1:]:
        raise UnilensError(
            f"expected references of shape (R, {shape}), got {tuple(references.shape)}; preprocess "
            "them as the inputs are"
        )
    return references.detach().to(inputs)

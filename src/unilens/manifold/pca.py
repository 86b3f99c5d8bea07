"""The linear manifold: the principal components of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import require
from ..numerics import wide
from ..settings import check_count
from .tangent import TangentSpace, check_shape


@dataclass(frozen=True, eq=False)
class PCA:
    """The plane through the data's mean along their principal components.

    Its tangent space is the same everywhere.

    Args:
        mean: `*S`.
        components: `(d, k)`, orthonormal columns.
    """

    mean: Tensor
    components: Tensor

    @classmethod
    def fit(cls, inputs: Tensor, dimension: int) -> PCA:
        """Return the plane of the k largest components of inputs `(N, *S)`.

        Args:
            inputs: at least k + 1 of them.
            dimension: k.
        """
        check_count("dimension", dimension)
        mean = wide(inputs).mean(0)
        centred = (wide(inputs) - mean).flatten(1)
        require(
            dimension <= min(len(inputs) - 1, centred.shape[1]),
            f"expected dimension to be at most {min(len(inputs) - 1, centred.shape[1])}, from "
            f"{len(inputs)} inputs of {centred.shape[1]} values, got {dimension}",
        )
        _, _, right = torch.linalg.svd(centred, full_matrices=False)
        return cls(mean, right[:dimension].T.contiguous())

    def check(self, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs have another shape."""
        check_shape(self.mean.shape, inputs)

    def __call__(self, inputs: Tensor) -> TangentSpace:
        """Return the tangent spaces; see `Manifold`."""
        space = TangentSpace.spanned_by(self.components.unsqueeze(0))
        count = len(inputs)
        return TangentSpace(space.basis.expand(count, -1, -1), space.rank.expand(count))

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the codes `(B, k)`."""
        return (wide(inputs) - self.mean).flatten(1) @ self.components

    def decode(self, codes: Tensor) -> Tensor:
        """Return the points `(B, *S)` of the plane."""
        return (codes @ self.components.T).unflatten(1, self.mean.shape) + self.mean

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Return the nearest points of the plane `(B, *S)`."""
        return self.decode(self.encode(inputs))

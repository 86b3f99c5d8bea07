"""The linear manifold: the principal components of the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import to_float64
from .._validation.settings import check_count
from ..errors import require
from .tangent import TangentSpace, check_shape


@dataclass(frozen=True, eq=False)
class PCA:
    """The plane through the data's mean along their principal components.

    Its tangent space is the same everywhere.

    Args:
        mean: `*S`.
        components: `(d, k)`, orthonormal columns; 0 where the data have no further direction.
    """

    mean: Tensor
    components: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.components.shape)
        require(
            self.components.ndim == 2 and shape[0] == self.mean.numel(),
            f"expected components (d, k), d = {self.mean.numel()} as of the mean, got {shape}",
        )

    @classmethod
    def fit(cls, inputs: Tensor, dimension: int) -> PCA:
        """Return the plane of the k largest components of inputs `(N, *S)`.

        Args:
            inputs: at least k + 1 of them.
            dimension: k.
        """
        dimension = check_count("dimension", dimension)
        mean = to_float64(inputs).mean(0)
        centred = (to_float64(inputs) - mean).flatten(1)
        require(
            dimension <= min(len(inputs) - 1, centred.shape[1]),
            f"expected dimension to be at most {min(len(inputs) - 1, centred.shape[1])}, from "
            f"{len(inputs)} inputs of {centred.shape[1]} values, got {dimension}",
        )
        _, sizes, right = torch.linalg.svd(centred, full_matrices=False)
        least = 4 * torch.finfo(inputs.dtype).eps * to_float64(inputs).norm()
        kept = right[:dimension] * (sizes[:dimension, None] > least)
        return cls(mean, kept.T.contiguous())

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
        centred = to_float64(inputs) - to_float64(self.mean).to(inputs.device)
        return centred.flatten(1) @ self._components(inputs)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the points `(B, *S)` of the plane."""
        flat = to_float64(codes) @ self._components(codes).T
        return flat.unflatten(1, self.mean.shape) + to_float64(self.mean).to(codes.device)

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Return the nearest points of the plane `(B, *S)`."""
        return self.decode(self.encode(inputs))

    def _components(self, like: Tensor) -> Tensor:
        return to_float64(self.components).to(like.device)

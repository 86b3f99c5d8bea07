"""Tangent spaces without a model: the principal components of an input's neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._ops.precision import to_float64
from .._validation.references import References
from .._validation.settings import Count, Settings, TwoOrMore
from ..errors import require
from .tangent import TangentSpace, check_shape

_AT_ONCE = 2**24
"""Values of references that are widened together: 128 MiB."""


@dataclass(frozen=True, eq=False)
class LocalPCA(Settings):
    """The principal components of the references nearest to each input, about their mean.

    Args:
        references: `(R, *S)`, a sample of the data.
        dimension: k, of the tangent space.
        neighbours: how many references, in l2; more than k, and few enough that the manifold is
            nearly flat over them.

    References:
        Zhang, Zha 2004, "Principal manifolds and nonlinear dimensionality reduction via tangent
        space alignment", doi 10.1137/S1064827502419154.
    """

    references: References
    dimension: Count = 16
    neighbours: TwoOrMore = 50

    def __post_init__(self) -> None:
        most = min(self.neighbours - 1, self.references[0].numel())
        require(
            self.dimension <= most,
            f"expected dimension to be at most {most}, with {self.neighbours} neighbours of "
            f"{self.references[0].numel()} values, got {self.dimension}",
        )
        require(
            self.neighbours <= len(self.references),
            f"expected at least {self.neighbours} references, one for each neighbour, got "
            f"{len(self.references)}",
        )

    def check(self, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the inputs have another shape."""
        check_shape(self.references.shape[1:], inputs)

    def __call__(self, inputs: Tensor) -> TangentSpace:
        """Return the tangent spaces; see `Manifold`."""
        references = self.references.to(inputs.device).flatten(1)
        return TangentSpace.concat(
            [self._space(to_float64(row.flatten()), references) for row in inputs]
        )

    def _space(self, point: Tensor, references: Tensor) -> TangentSpace:
        """Return the space of the largest principal components about one input `(d,)`."""
        blocks = references.split(max(1, _AT_ONCE // point.numel()))
        distances = torch.cat([(to_float64(block) - point).square().sum(1) for block in blocks])
        near = to_float64(references[distances.topk(self.neighbours, largest=False).indices])
        _, sizes, right = torch.linalg.svd(near - near.mean(0), full_matrices=False)
        rounded = torch.finfo(references.dtype).eps * near.norm()
        directions = sizes[: self.dimension, None] * right[: self.dimension]
        return TangentSpace.spanned_by(directions.T.unsqueeze(0), float(4 * rounded / sizes[0]))

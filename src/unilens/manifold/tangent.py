"""Tangent spaces: an orthonormal basis at each input, and the share of a map within it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from .._ops.precision import l2_norm, to_float64
from ..errors import NotApplicableError, UnilensError, require

_ORTHONORMAL = 1e-4


@dataclass(frozen=True, slots=True)
class TangentSpace:
    """The tangent space of a manifold at each of B inputs of d values.

    Attributes:
        basis: `(B, d, k)` in float64 (float32 on devices that know no other), orthonormal columns;
            those beyond the rank are 0. Where k is above d, there are d of them.
        rank: `(B,)`, the number of columns: the numerical rank of the spanning vectors.
    """

    basis: Tensor
    rank: Tensor

    @classmethod
    def spanned_by(cls, vectors: Tensor, tolerance: float | None = None) -> TangentSpace:
        """Return the spaces that vectors span.

        A QR decomposition, and the singular values of its small factor R, which are those of the
        vectors: their number above the tolerance is the numerical rank.

        Args:
            vectors: `(B, d, k)`, in columns.
            tolerance: relative to the largest singular value; None for what rounding in the
                vectors' dtype does to them, see `rounding`.
        """
        require(
            vectors.ndim == 3 and vectors.is_floating_point() and min(vectors.shape) > 0,
            f"expected vectors (B, d, k), floating point, got {tuple(vectors.shape)}, "
            f"{vectors.dtype}",
        )
        require(
            bool(vectors.isfinite().all()),
            f"expected finite vectors, got NaN or infinity in {tuple(vectors.shape)}; check the "
            "decoder",
        )
        if tolerance is None:
            tolerance = rounding(vectors.dtype, vectors.shape[2])
        bases = [_basis(matrix, tolerance) for matrix in to_float64(vectors)]
        return cls(*(torch.stack(column) for column in zip(*bases, strict=True)))

    @classmethod
    def concat(cls, spaces: Sequence[TangentSpace]) -> TangentSpace:
        """Return the spaces of several batches as one."""
        return cls(
            torch.cat([space.basis for space in spaces]),
            torch.cat([space.rank for space in spaces]),
        )

    @property
    def random_level(self) -> Tensor:
        """sqrt(rank / d), `(B,)`: the content of a random direction (root of the mean square)."""
        return to_float64(self.rank).div(self.basis.shape[1]).sqrt()

    def project(self, values: Tensor) -> Tensor:
        """Return the part of maps `(B, *S)` that lies in the tangent space, in float64."""
        flat = to_float64(values).flatten(1)
        projections = [basis @ (basis.T @ row) for basis, row in zip(self.basis, flat, strict=True)]
        return torch.stack(projections).view(values.shape)

    def content(self, values: Tensor) -> Tensor:
        """Return the tangential content |P v| / |v| of maps `(B, *S)`, from 0 to 1, `(B,)`.

        NaN where a map is 0 or where there is no tangent direction.

        References:
            Simpson et al. 2024, arXiv 2503.08240 (mu_x); Bordt et al. 2022, arXiv 2206.07387.
        """
        flat = to_float64(values).flatten(1)
        inside = [(basis.T @ row).norm() for basis, row in zip(self.basis, flat, strict=True)]
        content = (torch.stack(inside) / l2_norm(values)).clamp(max=1.0)
        return content.masked_fill(self.rank == 0, math.nan)


def rounding(dtype: torch.dtype, count: int) -> float:
    """Return how far rounding moves singular values, relative to the largest, of k columns.

    Each entry is off by an epsilon, so that the matrix of the errors has at most sqrt(k) epsilons
    of the largest singular value; four times that allows for the computation of the entries.
    """
    return 4 * math.sqrt(count) * torch.finfo(dtype).eps


def _basis(vectors: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Return an orthonormal basis `(d, k)` of vectors `(d, k)`, and its rank `()`.

    Alone: a batch of decompositions rounds otherwise than each by itself.
    """
    orthonormal, triangle = torch.linalg.qr(vectors)
    left, sizes, _ = torch.linalg.svd(triangle, full_matrices=False)
    kept = sizes > tolerance * sizes[0]
    return orthonormal @ (left * kept), kept.sum()


class Manifold(Protocol):
    """From inputs `(B, *S)` to the tangent spaces of the data's manifold there.

    A plain function of this shape will do. What it gives for an input must not depend on the
    others. One that does not fit all inputs is a `CheckedManifold` as well.
    """

    def __call__(self, inputs: Tensor) -> TangentSpace:
        """Return the tangent space at each input, d being the number of its values."""


@runtime_checkable
class CheckedManifold(Protocol):
    """A manifold that says which inputs it fits."""

    def check(self, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the manifold does not fit the inputs."""


def check_manifold(manifold: Manifold, inputs: Tensor) -> None:
    """Raise `NotApplicableError` where a manifold does not fit the inputs."""
    if isinstance(manifold, CheckedManifold):
        manifold.check(inputs)


def check_shape(shape: torch.Size, inputs: Tensor) -> None:
    """Raise unless the inputs have the shape `*S` that a manifold was fitted to."""
    if inputs.shape[1:] != shape:
        raise NotApplicableError(
            f"expected inputs of the shape {tuple(shape)} that the manifold was fitted to, got "
            f"{tuple(inputs.shape[1:])}; fit one to these (unilens manifold fit)"
        )


def spaces_at(manifold: Manifold, inputs: Tensor) -> TangentSpace:
    """Return the tangent spaces at inputs `(B, *S)`, checked, on their device."""
    check_manifold(manifold, inputs)
    with torch.no_grad():
        returned = cast(object, manifold(inputs.detach()))
    expected = inputs.flatten(1).shape
    if not isinstance(returned, TangentSpace) or returned.basis.shape[:2] != expected:
        actual = (
            tuple(returned.basis.shape)
            if isinstance(returned, TangentSpace)
            else type(returned).__name__
        )
        raise UnilensError(
            f"expected the manifold to give a TangentSpace with a basis {tuple(expected)} x k, got "
            f"{actual}"
        )
    like = to_float64(inputs[:0])
    space = TangentSpace(
        returned.basis.to(like.dtype).to(like.device), torch.as_tensor(returned.rank)
    )
    _check_orthonormal(space, len(inputs))
    return TangentSpace(space.basis, space.rank.to(like.device))


def _check_orthonormal(space: TangentSpace, count: int) -> None:
    """Raise unless each basis has as many orthonormal columns as its rank, and else zeros."""
    for basis, rank in zip(space.basis, space.rank.expand(count), strict=True):
        gram = basis.T @ basis
        ends = torch.diag((gram.diagonal() > 0.5).to(gram.dtype))
        if not (gram - ends).abs().max() < _ORTHONORMAL or int(ends.sum()) != int(rank):
            raise UnilensError(
                "expected the manifold to give orthonormal columns, as many as the rank, and zeros "
                "beside them; make the TangentSpace by TangentSpace.spanned_by(vectors)"
            )


def reconstruction_error(reconstructed: Tensor, inputs: Tensor) -> Tensor:
    """Return the root of the mean squared error of each input `(B,)`, in the inputs' units."""
    return (to_float64(reconstructed) - to_float64(inputs)).flatten(1).square().mean(1).sqrt()

"""Manifolds of a decoder: tangent spaces from its Jacobian, in forward mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .._engine.memory import out_of_memory
from .._engine.smooth_activations import twice_differentiable
from ..errors import UnilensError, first_line, require
from .tangent import TangentSpace, check_shape

Decode = Callable[[Tensor], Tensor]
"""From codes `(m, k)` to inputs `(m, *S)`, each row from its own code alone."""

_BYTES = 64 * 2**20
"""Of the columns of Jacobians computed together; the decoder's layers take a multiple."""


def jacobians(decode: Decode, codes: Tensor, *, at_once: int | None = None) -> Tensor:
    """Return the Jacobians `(B, d, k)` of a decoder at codes.

    In forward mode: one pass of the decoder carries the derivatives along all k directions, while
    the rows of reverse mode take d passes. Where an operation has no forward mode, rows are taken.

    Args:
        decode: from codes to inputs; in eval mode, differentiable.
        codes: `(B, k)`.
        at_once: codes per pass; None for as many as keep 64 MiB of columns in memory.

    Raises:
        UnilensError: the decoder cannot take the codes, or cannot be differentiated.
    """
    require(
        codes.ndim == 2 and codes.shape[1] >= 1,
        f"expected codes (B, k), k at least 1, got {tuple(codes.shape)}",
    )
    with torch.no_grad():
        flat = _decoded(decode, codes[:1])
    if at_once is None:
        at_once = max(1, _BYTES // (flat.nbytes * codes.shape[1]))
    blocks = [_jacobians(decode, block) for block in codes.detach().split(at_once)]
    return torch.cat(blocks)


@runtime_checkable
class Coder(Protocol):
    """A map from inputs to codes and back, such as an autoencoder."""

    def encode(self, inputs: Tensor) -> Tensor:
        """Return the codes `(B, k)` of inputs `(B, *S)`."""

    def decode(self, codes: Tensor) -> Tensor:
        """Return the inputs `(B, *S)` of codes `(B, k)`."""


@runtime_checkable
class _ShapedCoder(Protocol):
    """A coder of inputs of one shape `*S`."""

    shape: Sequence[int]


@dataclass(frozen=True, eq=False)
class Decoder:
    """The manifold of a decoder's outputs.

    The tangent space at x is the column span of the decoder's Jacobian at the code of x. It is that
    of the manifold at the reconstruction of x, and approximates that at x where the error of
    reconstruction is small.

    Args:
        coder: has `encode` and `decode`; a module in eval mode. Inputs are taken one by one, so
            that the result for one does not depend on the others.

    References:
        Bordt et al. 2022, arXiv 2206.07387; Simpson et al. 2024, arXiv 2503.08240.
    """

    coder: Coder

    def __post_init__(self) -> None:
        require(
            isinstance(self.coder, Coder),
            f"expected a coder with encode and decode, got {type(self.coder).__name__}",
        )
        self._check_mode()

    def _check_mode(self) -> None:
        modules = self.coder.modules() if isinstance(self.coder, nn.Module) else ()
        require(
            not any(module.training for module in modules),
            "expected the coder in eval mode, got training mode; call coder.eval() first",
        )

    def check(self, inputs: Tensor) -> None:
        """Raise `NotApplicableError` where the coder takes another shape."""
        if isinstance(self.coder, _ShapedCoder):
            check_shape(torch.Size(self.coder.shape), inputs)

    def __call__(self, inputs: Tensor) -> TangentSpace:
        """Return the tangent spaces; see `Manifold`."""
        self._check_mode()
        given = self._as_the_coder(inputs)
        codes = [_run("encoder", self.coder.encode, row) for row in given.split(1)]
        matrices = [jacobians(self.coder.decode, code) for code in codes]
        return TangentSpace.spanned_by(torch.cat(matrices))

    def reconstruct(self, inputs: Tensor) -> Tensor:
        """Return the coder's reconstructions of the inputs, points of the manifold `(B, *S)`."""
        with torch.no_grad():
            return self.coder.decode(self.coder.encode(self._as_the_coder(inputs)))

    def _as_the_coder(self, inputs: Tensor) -> Tensor:
        """Return the inputs on the device and in the dtype of the coder's weights."""
        weights = self.coder.parameters() if isinstance(self.coder, nn.Module) else iter(())
        like = next(weights, None)
        return inputs if like is None else inputs.to(like.device, like.dtype)


def _decoded(decode: Decode, codes: Tensor) -> Tensor:
    inputs = _run("decoder", decode, codes)
    return inputs.flatten(1)


def _run(name: str, work: Callable[[Tensor], Tensor], given: Tensor) -> Tensor:
    try:
        made = work(given)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise UnilensError(
            f"the {name} could not take {tuple(given.shape)}, {given.dtype}: {first_line(error)}"
        ) from error
    actual = tuple(made.shape) if isinstance(made, Tensor) else type(made).__name__
    require(
        isinstance(made, Tensor) and made.ndim > 1 and len(made) == len(given),
        f"expected the {name} to give a row for each of {len(given)}, got {actual}",
    )
    return made


def _jacobians(decode: Decode, codes: Tensor) -> Tensor:
    """Return the Jacobians `(m, d, k)` at codes `(m, k)`, together.

    The product of the transpose with u is linear in u; its gradients in u are the columns.
    """
    with torch.enable_grad(), twice_differentiable():
        leaf = codes.detach().requires_grad_()
        flat = _decoded(decode, leaf)
        if not flat.requires_grad:
            return _rows(decode, codes)
        factors = torch.zeros_like(flat, requires_grad=True)
        try:
            (product,) = torch.autograd.grad(flat, leaf, factors, create_graph=True)
            columns = [
                torch.autograd.grad(product[:, k].sum(), factors, retain_graph=True)[0]
                for k in range(codes.shape[1])
            ]
        except (RuntimeError, NotImplementedError) as error:
            if out_of_memory(error):
                raise
            return _rows(decode, codes)
    return torch.stack(columns, dim=2)


def _rows(decode: Decode, codes: Tensor) -> Tensor:
    """Return the Jacobians row by row, in reverse mode."""
    with torch.enable_grad():
        leaf = codes.detach().requires_grad_()
        flat = _decoded(decode, leaf)
        require(
            flat.requires_grad,
            "expected a decoder that is differentiable, got one whose outputs have no gradient; "
            "remove detach() or no_grad from it",
        )
        rows = [
            torch.autograd.grad(column.sum(), leaf, retain_graph=True)[0]
            for column in flat.unbind(1)
        ]
    return torch.stack(rows, dim=1)

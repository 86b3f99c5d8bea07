"""Where a transformer's tokens are in its inputs, and which of them the head reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..._engine.blocks import Recording
from ..._ops.precision import to_float64
from ...errors import NotApplicableError
from ..cam.grids import TokenGrid, enlarge, prefix_counts, tokens_by_aspect, tokens_of_grids

_MOST_FIXED = 16
"""Class token, distillation token, registers."""


def values_at_inputs(
    values: Tensor, model: nn.Module, recording: Recording, inputs: Tensor
) -> Tensor:
    """Return the values of tokens `(N,)` at an input `(1, *S)`.

    The grid of a picture's tokens is enlarged linearly to its size, and divided evenly among the
    channels; a value of a text's token is spread evenly over its E values.
    """
    if recording.positions is not None:
        by_token = values[recording.positions].to(inputs.dtype) / inputs.shape[1]
        return by_token.expand(inputs.shape).contiguous()
    prefix, spatial_shape = token_grid(model, recording, inputs)
    return enlarge(values[prefix:].reshape(1, 1, *spatial_shape), inputs)


def token_grid(model: nn.Module, recording: Recording, inputs: Tensor) -> TokenGrid:
    """Return the grid of the tokens of inputs `(B, *S)`; a text's tokens are one.

    Raises:
        NotApplicableError: their number fits no grid.
    """
    count = recording.token_count
    if recording.positions is not None:
        return TokenGrid(0, (count,))
    fixed = _fixed_tokens(recording)
    prefixes = prefix_counts(model) if fixed is None else [fixed]
    spatial_shape = tuple(inputs.shape[2:])
    grids = [grid for grid in recording.grids if len(grid) == len(spatial_shape)]
    if len(spatial_shape) == 1:
        grids = [spatial_shape, *grids]
    grid = tokens_of_grids(count, prefixes, grids)
    if grid is None and len(spatial_shape) == 2:
        grid = tokens_by_aspect(count, prefixes, spatial_shape)
    if grid is None:
        raise NotApplicableError(
            "expected tokens that are a grid of positions, after at most "
            f"{_MOST_FIXED} that do not depend on the input, got {count} tokens for an input of "
            f"{' × '.join(map(str, spatial_shape))}; use method='ig'"
        )
    return grid


def _fixed_tokens(recording: Recording) -> int | None:
    """Return how many tokens before the others do not depend on the input, such as a class token.

    None where the first block receives no tokens.

    Raises:
        NotApplicableError: the last token does not depend on the input either.
    """
    if recording.embedded is None:
        return None
    tokens = recording.embedded.reshape(recording.token_count, -1)
    if not _depends_on_input(recording, tokens[-1]):
        raise NotApplicableError(
            "expected tokens of positions after those of no position, got a last token that does "
            "not depend on the input; use method='ig'"
        )
    first = range(min(_MOST_FIXED, len(tokens) - 1) + 1)
    return next((i for i in first if _depends_on_input(recording, tokens[i])), _MOST_FIXED + 1)


def _depends_on_input(recording: Recording, token: Tensor) -> bool:
    (slope,) = torch.autograd.grad(
        token.sum(), recording.inputs, allow_unused=True, retain_graph=True
    )
    return slope is not None and bool(slope.any())


def read_tokens(gradient: Tensor, count: int) -> Tensor:
    """Return which tokens the head reads: those in which its output has a gradient, `(n,)`.

    Args:
        gradient: of an output in the last block's tokens, `(1, N, D)` or `(N, 1, D)`.
        count: of the tokens, N.
    """
    return gradient.reshape(count, -1).any(1).nonzero().flatten()


def mean_of_rows(matrix: Tensor, tokens: Tensor) -> Tensor:
    """Return the mean `(N,)` of the rows of some tokens of a matrix `(N, N)`."""
    return to_float64(matrix)[tokens].mean(0)


def describe_rows(tokens: Tensor, count: int) -> str:
    """Return how a record names the rows that were taken."""
    if len(tokens) == 1:
        return f"token {int(tokens)}"
    if len(tokens) == count:
        return f"mean of all {count} tokens"
    if len(tokens) <= 4:
        return f"mean of tokens {', '.join(map(str, tokens.tolist()))}"
    return f"mean of {len(tokens)} of {count} tokens"
